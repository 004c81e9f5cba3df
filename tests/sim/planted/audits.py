"""Faults in comparing the members' states: a bit that has turned is missed, or believed."""

from __future__ import annotations

from tests.sim.planted.fault import Edit, Fault
from tests.sim.planted.focus import audits, read_audits

_AUDIT = "raft_agent.consensus.audit"
_STATE = "raft_agent.consensus.state"
_NODE = "raft_agent.consensus.node"
_DIGEST = "raft_agent.machine.audit"
_MACHINE = "raft_agent.machine.machine"
_HELD = "raft_agent.machine.state"
_HOST = "tests.sim.audits"
_PROCESS = "tests.sim.process"

FAULTS = (
    Fault(
        "states_are_not_compared",
        "a member takes its own state for right, whatever the others found",
        (Edit(_AUDIT, "        elif own == verdict.digest:\n", "        elif own:\n"),),
        ("a wrong state is taken for right", "no progress after healing"),
        focus=audits,
        seed=7,
    ),
    Fault(
        "one_state_is_a_majority",
        "the leader closes a comparison with the first digest that it has",
        (Edit(_AUDIT, "            if state.has_quorum(members):\n", "            if members:\n"),),
        ("a wrong state is taken for right",),
        focus=audits,
        seed=10,
    ),
    Fault(
        "the_leader_trusts_itself",
        "a leader that found another state at a majority says its own is right",
        (
            Edit(
                _AUDIT,
                "        self._close(leadership, audit, Verdict(audit.index, digest, agreed=",
                "        digest = own\n"
                "        self._close(leadership, audit, Verdict(audit.index, digest, agreed=",
            ),
        ),
        ("a wrong state is taken for right",),
        focus=audits,
        seed=3,
    ),
    Fault(
        "who_differs_leads_on",
        "a leader that knows that its state is wrong leads on",
        (
            Edit(
                _AUDIT,
                "        if state.role in _LEADS_OR_STANDS:\n"
                "            state.become_follower(state.current_term, 0)\n",
                "",
            ),
        ),
        ("a node leads whose state is known to be wrong",),
        focus=audits,
        seed=3,
    ),
    Fault(
        "who_differs_stands",
        "a node that knows that its state is wrong stands for election",
        (Edit(_STATE, "            and not self.diverged_index\n", ""),),
        ("a node leads whose state is known to be wrong",),
        focus=audits,
        seed=3,
    ),
    Fault(
        "who_differs_goes_on_serving",
        "a node that knows that its state is wrong goes on with it",
        (
            Edit(
                _NODE,
                "        elif state.diverged_index and isinstance(event, _ASKED):\n"
                "            state.refuse(event.tag, RefusalReason.STATE_DIFFERS)\n",
                "",
            ),
            Edit(
                _PROCESS, "self.node.state.diverged_index > 0", "self.node.state.diverged_index < 0"
            ),
        ),
        ("a state is served that is known to be wrong",),
        focus=read_audits,
    ),
    Fault(
        "disputed_states_change",
        "commands are applied although nobody knows whose state is right",
        (
            Edit(
                _MACHINE,
                "        if self._trail is not None and self._trail.disputed_index:\n",
                "        if self._trail is not None and self._trail.disputed_index < 0:\n",
            ),
        ),
        ("a state is served while nobody knows whose is right",),
        focus=audits,
        seed=3,
    ),
    Fault(
        "trail_left_out_of_snapshots",
        "what was applied begins anew behind each snapshot",
        (Edit(_HELD, "Trail(applied, disputed_index)", "Trail()"),),
        ("equal states have other digests", "two nodes have other states"),
        focus=audits,
        seed=1,
    ),
    Fault(
        "digest_by_blocks",
        "what a state comes to depends on how it was cut into blocks",
        (
            Edit(
                _DIGEST,
                "        self._crc = _crc32c_of(self._crc, item_bytes(portion, block))\n",
                "        self._crc = _crc32c_of(self._crc, block)\n",
            ),
        ),
        ("equal states have other digests",),
        focus=audits,
        seed=1,
    ),
    Fault(
        "keys_left_out_of_the_digest",
        "the digest is made of everything but the keys",
        (
            Edit(
                _DIGEST,
                "        if not portion.items:\n",
                "        if not portion.items or portion.section is Section.KEYS:\n",
            ),
        ),
        ("no progress after healing", "two nodes have other states"),
        focus=audits,
        seed=3,
    ),
    Fault(
        "snapshot_not_proven",
        "a snapshot gets its name before the members have compared",
        (
            Edit(
                _HOST,
                "        self._read = {index: (digest, stored)}\n",
                "        self._read = {index: (digest, None)}\n"
                "        if stored is not None:\n"
                "            process.snapshots.keep(stored)\n",
            ),
        ),
        ("two nodes have other states",),
        focus=audits,
        seed=3,
    ),
    Fault(
        "rebuild_keeps_the_state",
        "a node that was told to rebuild believes its state again and goes on",
        (
            Edit(
                _HOST,
                "            process.cluster.faults.crash(process, kill=True)\n",
                "            process.node.state.diverged_index = 0\n",
            ),
        ),
        (
            "a wrong state is taken for right",
            "no progress after healing",
            "MachineError",
            "a state is served",
        ),
        focus=audits,
        seed=3,
    ),
)
