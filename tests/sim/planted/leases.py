"""Faults in leases (§6.4.1 of the thesis)."""

from __future__ import annotations

from tests.sim.planted.fault import Edit, Fault
from tests.sim.planted.focus import leases

_LEASE = "raft_agent.consensus.lease"
_STATE = "raft_agent.consensus.state"
_ELECTION = "raft_agent.consensus.election"
_APPENDS = "raft_agent.consensus.appends"
_TRANSFER = "raft_agent.consensus.transfer"

FAULTS = (
    Fault(
        "lease_without_drift",
        "a leader does not take off its lease what clocks may differ by",
        (
            Edit(
                _LEASE,
                "withheld_us * (_MILLION - drift_ppm) // _MILLION",
                "withheld_us",
            ),
        ),
        ("linearizable", "has a lease"),
        focus=leases,
        seed=24,
    ),
    Fault(
        "lease_kept_over_a_hand_over",
        "a leader that has told another one to stand goes on reading by its lease",
        (Edit(_TRANSFER, "            leadership.lease.is_void = True\n", ""),),
        ("linearizable", "has a lease"),
        focus=leases,
    ),
    Fault(
        "lease_from_the_replys_arrival",
        "a lease is counted from when the reply came, not from when its heartbeat left",
        (
            Edit(
                _LEASE,
                "sent_us = self._sent.get(request_id)",
                "sent_us = next(reversed(self._sent.values()), None)",
            ),
        ),
        ("linearizable", "has a lease"),
        focus=leases,
        seed=4,
    ),
    Fault(
        "word_forgotten_at_restart",
        "a voter that starts again votes at once, whatever it promised before",
        (Edit(_STATE, "self.leader_heard_us = now_us", "self.leader_heard_us = now_us - 10**9"),),
        ("linearizable", "has a lease"),
        unit_test="test_leases:test_a_voter_that_restarts_inside_a_lease_withholds_its_vote",
    ),
    Fault(
        "longer_word_forgotten_at_restart",
        "a voter that starts again with a shorter timeout withholds its vote for that one only",
        (Edit(_STATE, "max(word_us - settings.election_timeout_min_us, 0)", "0"),),
        ("linearizable", "has a lease"),
        unit_test="test_leases:"
        "test_a_voter_that_comes_back_with_a_shorter_timeout_keeps_the_longer_word",
    ),
    Fault(
        "longer_word_shortened",
        "the next heartbeat makes an earlier start's longer word as short as today's",
        (
            Edit(
                _APPENDS,
                "max(state.leader_heard_us, state.now_us)",
                "state.now_us",
            ),
        ),
        ("linearizable", "has a lease"),
        unit_test="test_leases:"
        "test_a_voter_that_comes_back_with_a_shorter_timeout_keeps_the_longer_word",
    ),
    Fault(
        "word_forgotten_in_a_later_term",
        "a voter that has learnt of a later term votes in it, whatever it promised before",
        (
            Edit(
                _ELECTION,
                "is_free = state.voted_for == 0 and"
                " (message.transfer or not state.leader_is_alive())",
                "is_free = state.voted_for == 0",
            ),
        ),
        ("linearizable", "has a lease"),
        unit_test="test_leases:test_a_voter_keeps_its_word_in_the_term_that_it_has_learnt_of_meanwhile",
    ),
)
