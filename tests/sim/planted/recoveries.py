"""Faults in recoveries, when a majority is lost for good."""

from __future__ import annotations

from tests.sim.planted.fault import Edit, Fault
from tests.sim.rescue_runs import run_any

_RECOVERY = "raft_agent.consensus.recovery"
_NODE = "raft_agent.consensus.node"
_GENERATIONS = "raft_agent.consensus.generations"
_BOOTSTRAP = "raft_agent.consensus.bootstrap"

FAULTS = (
    Fault(
        "recovers_anywhere",
        "a survivor goes on although another one has a more complete log",
        (Edit(_RECOVERY, "    elif best != state.member_id:\n", "    elif False:\n"),),
        ("which has not the most",),
        scenario=run_any,
    ),
    Fault(
        "asks_nobody_before_it_recovers",
        "what the other survivors say is not looked at",
        (
            Edit(
                _RECOVERY,
                "survivor in survivors if survivor.id in members}",
                "survivor in survivors if survivor.id == 0}",
            ),
        ),
        ("which has not the most", "recovers beside a majority"),
        scenario=run_any,
    ),
    Fault(
        "recovers_beside_a_majority",
        "neither a leader nor a quorum that answers keeps a survivor from going on",
        (
            Edit(
                _RECOVERY,
                "elif own.knows_leader or any(said.knows_leader for said in alike.values()):",
                "elif False:",
            ),
            Edit(
                _RECOVERY,
                "elif quorum.has_quorum(configuration, _electing(state, logs)):",
                "elif False:",
            ),
        ),
        ("recovers beside a majority",),
        scenario=run_any,
    ),
    Fault(
        "generation_shown_before_it_is_durable",
        "a new generation shows itself as soon as its first entry is appended",
        (
            Edit(
                _NODE,
                "return shown if not state.recovering else generation_of(self._before_recovery())",
                "return shown",
            ),
        ),
        ("a generation shows itself before it is on disk", "abandons its data unasked"),
        scenario=run_any,
    ),
    Fault(
        "dead_one_taken_back",
        "members of former generations are taken for members of this one",
        (
            Edit(
                _GENERATIONS,
                "return Kinship.FORMER if other_id in own.former else Kinship.STRANGE",
                "return Kinship.SAME if other_id in own.former else Kinship.STRANGE",
            ),
        ),
        (
            "does not know that it is dead",
            "no progress after the recovery",
            "changed the members",
            "leader completeness",
            "committed entries differ",
            "log matching",
            "two leaders in one term",
            "is back from the dead",
        ),
        scenario=run_any,
    ),
    Fault(
        "superseded_members_go_on",
        "a member that hears of a later generation goes on standing for election",
        (
            Edit(
                _RECOVERY,
                "        state.superseded = event.generation\n",
                "",
            ),
        ),
        ("does not know that it is dead",),
        scenario=run_any,
    ),
    Fault(
        "survivors_begin_with_the_old_log",
        "who comes in again gets the log from its first entry on, with the configurations in it",
        (
            Edit(
                _BOOTSTRAP,
                "            and generation_of(first[1]).id == generation_of(configuration).id\n",
                "",
            ),
        ),
        ("has a former generation in its log", "no progress after the recovery"),
        scenario=run_any,
    ),
    Fault(
        "numbers_given_out_again",
        "a new generation goes on with the revisions that lost entries had as well",
        (
            Edit(
                _RECOVERY,
                "                max(event.floor, former.floor),\n",
                "                0,\n",
            ),
        ),
        ("revision ",),
        seed=2,
        scenario=run_any,
    ),
)
