"""Faults in linearizable reads (§6.4 of the thesis)."""

from __future__ import annotations

from tests.sim.planted.fault import Edit, Fault
from tests.sim.planted.focus import stale_leaders

_READS = "raft_agent.consensus.reads"

FAULTS = (
    Fault(
        "read_before_the_no_op",
        "a new leader answers reads before it knows what is committed",
        (
            Edit(
                _READS,
                "if not reads.waiting or state.log.term_at(state.commit_index)"
                " != state.current_term:",
                "if not reads.waiting:",
            ),
        ),
        ("linearizable", "undecided"),
        seed=78,
    ),
    Fault(
        "read_without_a_round",
        "a leader answers reads without asking whether it still leads",
        (
            Edit(
                _READS,
                "                if not state.has_quorum(reads.acks):\n"
                "                    return\n",
                "",
            ),
        ),
        ("linearizable",),
        focus=stale_leaders,
    ),
    Fault(
        "answers_from_before_the_read_count",
        "replies to heartbeats from before a read confirm it",
        (
            Edit(
                _READS,
                "if reads.round and message.request_id >= reads.round_request_id:",
                "if reads.round:",
            ),
        ),
        ("linearizable",),
        unit_test="test_read_index:test_replies_to_heartbeats_from_before_the_read_prove_nothing",
    ),
    Fault(
        "one_answer_is_enough",
        "a single reply confirms a read, whatever the size of the cluster",
        (
            Edit(
                _READS,
                "if not state.has_quorum(reads.acks):",
                "if len(reads.acks) < 2 and len(leadership.progress) > 0:",
            ),
        ),
        ("linearizable",),
        unit_test="test_read_index:test_a_minority_leader_never_answers",
    ),
    Fault(
        "follower_reads_for_itself",
        "a follower answers a read by its own commit index",
        (
            Edit(
                _READS,
                "            self._waiting.append(event)\n",
                "            state.effects.append(ReadReady(event.tag, state.commit_index))\n",
            ),
        ),
        ("linearizable",),
    ),
    Fault(
        "reads_join_the_round_that_is_out",
        "a read that comes while a round is out is answered with that round",
        (
            Edit(
                _READS,
                "state.leadership.reads.waiting.append(ReadRequest(0, event.tag, event.lease))",
                "(state.leadership.reads.round or state.leadership.reads.waiting).append(\n"
                "                ReadRequest(0, event.tag, event.lease))",
            ),
        ),
        ("linearizable",),
        unit_test="test_read_index:test_reads_that_come_while_a_round_is_out_wait_for_the_next",
    ),
)
