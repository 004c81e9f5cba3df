"""Faults in how current a node takes itself for."""

from __future__ import annotations

from tests.sim.planted.fault import Edit, Fault
from tests.sim.planted.focus import stale_leaders

_FRESHNESS = "raft_agent.consensus.freshness"
_STATE = "raft_agent.consensus.state"
_SAYS_TOO_MUCH = ("takes itself for more current",)

FAULTS = (
    Fault(
        "old_words_make_current",
        "a follower counts from when it reads its leader's word, not from its own stamp",
        (
            Edit(
                _FRESHNESS,
                "state.current_at(message.as_of_us, message.as_of_index)",
                "state.current_at(state.now_us, message.as_of_index)",
            ),
        ),
        _SAYS_TOO_MUCH,
    ),
    Fault(
        "stamps_go_back_without_a_round",
        "a leader sends stamps back without asking whether it still leads",
        (
            Edit(
                _FRESHNESS,
                "        if not state.has_quorum(currency.acks):\n            return\n",
                "",
            ),
        ),
        _SAYS_TOO_MUCH,
        focus=stale_leaders,
    ),
    Fault(
        "current_before_it_is_applied",
        "a node is current as soon as it hears what is committed, not once it has applied it",
        (Edit(_STATE, "if self.applied_index >= index:", "if self.commit_index >= 0:"),),
        _SAYS_TOO_MUCH,
    ),
)
