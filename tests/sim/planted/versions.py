"""Faults in how the cluster version is raised, and in what it says of commands."""

from __future__ import annotations

from tests.sim.planted.fault import Edit, Fault
from tests.sim.planted.focus import slow_promises, upgrades, upgrades_and_joins

_UPGRADE = "raft_agent.machine.upgrade"
_COMMANDS = "raft_agent.machine.commands"
_STATE = "raft_agent.machine.state"
_HOST = "tests.sim.versions"

_TOO_EARLY = (
    "the version rises beyond what a member has promised",
    "a member goes on with a version that it does not know",
    "knows version 1",
)
_UNKNOWN = ("a member does not know a command that it applies",)
_DIVERGED = ("two nodes have other states", "have other states", "two nodes applied different")

_PROPOSED_TOO_EARLY = Edit(
    _COMMANDS,
    "        return max((self._needed(command) for command in commands), default=1)\n",
    "        return 1\n",
)

FAULTS = (
    Fault(
        "version_raised_without_promises",
        "the version is raised as soon as all connected programs know it",
        (
            Edit(
                _UPGRADE,
                "return Ask(version, missing) if missing else Raise(version)",
                "return Raise(version)",
            ),
        ),
        _TOO_EARLY,
        focus=upgrades,
    ),
    Fault(
        "version_raised_by_a_majority",
        "the promises of a majority are enough to raise the version",
        (
            Edit(
                _UPGRADE,
                "return Ask(version, missing) if missing else Raise(version)",
                "return Ask(version, missing) if 2 * len(missing) >= len(members) "
                "else Raise(version)",
            ),
        ),
        _TOO_EARLY,
        focus=slow_promises,
        seed=2,
    ),
    Fault(
        "silent_members_not_counted",
        "members to whom no connection stands are not asked what they know",
        (
            Edit(
                _UPGRADE,
                "        members = tuple(members)\n",
                "        members = tuple(member for member in members if member in known)\n",
            ),
        ),
        _TOO_EARLY,
        focus=upgrades,
    ),
    Fault(
        "promise_not_on_disk",
        "a member promises a version without noting it on its disk",
        (Edit(_HOST, "        disk.promised = max(disk.promised, version)\n", ""),),
        _TOO_EARLY,
        focus=upgrades,
    ),
    Fault(
        "joiners_not_asked",
        "a leader that has promised a version takes in whoever does not know it",
        (
            Edit(
                _HOST, "            if p.disk.promised < self.promised\n", "            if False\n"
            ),
            Edit(_HOST, "        process.disk.promised = self.promised = version\n", ""),
        ),
        _TOO_EARLY,
        focus=upgrades_and_joins,
    ),
    Fault(
        "commands_proposed_too_early",
        "a leader proposes commands of a version that is not in force",
        (_PROPOSED_TOO_EARLY,),
        _UNKNOWN,
        focus=upgrades,
    ),
    Fault(
        "commands_applied_too_early",
        "such commands count for whoever knows them",
        (
            _PROPOSED_TOO_EARLY,
            Edit(_COMMANDS, "        if version < self._newest:\n", "        if False:\n"),
        ),
        (*_DIVERGED, *_UNKNOWN),
        focus=upgrades,
    ),
    Fault(
        "version_not_in_the_snapshot",
        "whoever begins with a snapshot begins with the first version",
        (Edit(_STATE, "        machine.version = header.version\n", ""),),
        (*_DIVERGED, *_UNKNOWN, "the version in force goes down"),
        focus=upgrades,
        seed=10,
    ),
)
