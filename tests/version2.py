"""A raft-agent of a later version, for tests of upgrades: it knows the cluster versions 1 and 2.

All that version 2 brings is another put. `python tests/version2.py --config FILE` runs it: puts are
of version 2 as soon as that is in force, and those of keys that start with "2/" always.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from raft_agent.api.host import Outcome
from raft_agent.machine.commands import Command, Put, Vocabulary
from raft_agent.machine.machine import CommandResult, Machine
from raft_agent.versions import Versions

VERSIONS = Versions(1, 2)
ALWAYS = "2/"


class PutOfVersion2(
    msgspec.Struct, frozen=True, array_like=True, tag=19, forbid_unknown_fields=True, gc=False
):
    """What Put does."""

    key: str
    value: bytes
    if_revision: int = -1


VOCABULARY = Vocabulary(Command | PutOfVersion2, {PutOfVersion2: 2})


class MachineOfVersion2(Machine):
    versions = VERSIONS
    vocabulary = VOCABULARY

    def _apply_other(self, command: Any, index: int) -> CommandResult:
        if isinstance(command, PutOfVersion2):
            return self._put(Put(*msgspec.structs.astuple(command)), index)
        return super()._apply_other(command, index)


def of_version_2(command: Command) -> Command:
    """The same in version 2; what is remembered for a retry stays as it is."""
    if isinstance(command, Put):
        return cast("Command", PutOfVersion2(*msgspec.structs.astuple(command)))
    return command


def in_words_of_version_1(payload: memoryview, count: int) -> list[Command | None]:
    """The commands of a batch, whatever version they are of, with nothing that only version 2
    has."""
    return [
        Put(*msgspec.structs.astuple(command)) if isinstance(command, PutOfVersion2) else command
        for command in VOCABULARY.split(payload, count, VERSIONS.newest)
    ]


def _run() -> int:
    from raft_agent import main  # noqa: PLC0415
    from raft_agent.runtime import service  # noqa: PLC0415
    from raft_agent.runtime.front import Front  # noqa: PLC0415

    propose = Front.propose

    def propose_2(
        self: Front, commands: Sequence[Command], done: Callable[[Outcome], None]
    ) -> None:
        is_in_force = self.machine.version >= 2
        propose(
            self,
            [of_version_2(c) if is_in_force or _is_always(c) else c for c in commands],
            done,
        )

    Front.propose = propose_2  # type: ignore[method-assign]
    service.open_held = functools.partial(  # type: ignore[assignment]
        service.open_held, kind=MachineOfVersion2
    )
    return main.main()


def _is_always(command: Command) -> bool:
    return isinstance(command, Put) and command.key.startswith(ALWAYS)


if __name__ == "__main__":
    sys.exit(_run())
