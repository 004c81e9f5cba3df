"""Faults in keeping exported maps: what readers find in a kernel is not what its status says."""

from __future__ import annotations

from tests.sim.planted.fault import Edit, Fault
from tests.sim.planted.focus import exports

_FEED = "raft_agent.runtime.export_feed"
_KEEPER = "raft_agent.kernel.export_keeper"
_MAP = "raft_agent.kernel.exported"

_HOLDS = "a map holds what the log does not say"
_PINNED = "what is exported no longer is pinned"

FAULTS = (
    Fault(
        "index_moves_before_the_maps",
        "maps that go, or are of another state, are found at an index that they are not of",
        (
            Edit(
                _FEED,
                "        self._put(Declare(shapes, anew))\n        self._put_changes()\n",
                "        self._put_changes()\n        self._put(Declare(shapes, anew))\n",
            ),
        ),
        (_PINNED, _HOLDS),
        focus=exports,
        seed=1,
    ),
    Fault(
        "maps_follow_a_log_that_is_behind_them",
        "after a start maps are set to what the log says, though it has not come to them yet",
        (
            Edit(
                _FEED,
                "        if self._machine.last_applied >= found or self._is_current():\n",
                "        if self._machine.last_applied >= 0:\n",
            ),
        ),
        ("maps are ahead of what is written", "the index of exported maps goes back", _HOLDS),
        focus=exports,
    ),
    Fault(
        "what_was_left_out_is_called_complete",
        "a node that falls behind while it hands maps over says that all has come",
        (
            Edit(
                _FEED, "        self._steps = None\n        self._machine", "        self._machine"
            ),
        ),
        (_HOLDS, _PINNED),
        focus=exports,
        seed=5,
    ),
    Fault(
        "changes_while_a_map_is_filled_get_lost",
        "what changes before all of a map has come is not noted",
        (Edit(_KEEPER, "                found.note(changes)\n", ""),),
        (_HOLDS,),
        focus=exports,
    ),
    Fault(
        "half_filled_map_is_mended",
        "a map is compared with what it should hold before all of that has come",
        (
            Edit(
                _KEEPER,
                "[name for name, found in self._maps.items() if found.is_known]",
                "list(self._maps)",
            ),
        ),
        (_HOLDS, _PINNED),
        focus=exports,
    ),
    Fault(
        "index_moves_without_a_map",
        "the index moves on although a map could not be written",
        (
            Edit(
                _KEEPER,
                "            if not self.problems:\n                changes[",
                "            if self._is_whole:\n                changes[",
            ),
        ),
        (_HOLDS,),
        focus=exports,
        seed=2,
    ),
    Fault(
        "failed_write_forgotten_by_a_comparison",
        "a comparison passes over what was written, and could not be, since it began",
        (Edit(_MAP, "            self._failure = error\n", ""),),
        (_HOLDS,),
        focus=exports,
        seed=7,
    ),
    Fault(
        "batch_not_announced",
        "a batch is written without saying before up to where",
        (Edit(_KEEPER, "            self._show(writing=job.index)\n", ""),),
        (_HOLDS,),
        focus=exports,
    ),
    Fault(
        "fresh_at_any_index",
        "a copy counts as fresh as soon as its node is current, whatever of it is in the maps",
        (
            Edit(
                _KEEPER,
                '        changes = {"state": int(state), **told}\n',
                '        changes = {"state": int(state), "fresh_until_ns": self._fresh_until_ns, '
                "**told}\n",
            ),
            Edit(
                _KEEPER,
                '        if self.problems:\n            changes["fresh_until_ns"] = 0\n',
                "",
            ),
        ),
        ("a copy counts as fresh that lacks what was acknowledged",),
        focus=exports,
    ),
)
