"""Which configuration is in force.

A server uses the latest configuration in its log, committed or not (§6 of the paper), so a cut of
the log may bring an older one back.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from raft_agent.consensus.batch import Batch, BatchKind, encode
from raft_agent.consensus.types import Configuration, Member

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Configuration)

FIRST_TERM = 1
FIRST_INDEX = 1


def encode_configuration(configuration: Configuration) -> bytes:
    return _ENCODER.encode(configuration)


def decode_configuration(payload: bytes | memoryview) -> Configuration:
    """Raises msgspec.DecodeError or msgspec.ValidationError when the bytes are none."""
    return _DECODER.decode(payload)


def read_configuration(batch: Batch) -> Configuration | None:
    """The configuration that `batch` holds; None when its bytes are none that can be in force."""
    try:
        configuration = decode_configuration(batch.payload)
    except (ValueError, OverflowError, RecursionError):
        return None
    return configuration if configuration.voters and batch.count == 1 else None


def first_entry(configuration: Configuration) -> Batch:
    """The first entry of a cluster's log; the same configuration always gives the same bytes."""
    payload = encode_configuration(configuration)
    return encode(BatchKind.CONFIGURATION, FIRST_INDEX, FIRST_TERM, 1, payload)


class Membership:
    """The configurations in the log, oldest first; the last one, `current`, is in force."""

    __slots__ = ("_history", "current")

    def __init__(self, history: Iterable[tuple[int, Configuration]]) -> None:
        self._history = list(history)
        # At hand, because every event asks for it.
        self.current = self._last()

    def _last(self) -> Configuration | None:
        return self._history[-1][1] if self._history else None

    @property
    def index(self) -> int:
        """Where the configuration in force stands in the log; 0 when there is none."""
        return self._history[-1][0] if self._history else 0

    def in_force_at(self, index: int) -> tuple[int, Configuration] | None:
        """The configuration in force at the entry `index`, and where it stands; None when the log
        does not go back so far."""
        return next((known for known in reversed(self._history) if known[0] <= index), None)

    def is_removed(self, member_id: int, commit_index: int) -> bool:
        """Whether it is committed that this member is none any more."""
        if self.current is None or not self.current.removed:
            return False
        committed = self.in_force_at(commit_index)
        return committed is not None and member_id in committed[1].removed

    def may_lead(self, member_id: int, commit_index: int) -> bool:
        """Whether it is a voter, or was one in the last configuration that is known to be committed
        or since: before its removal is committed, the others may need it to lead once more (§4.2.2
        of the thesis), because nobody else may have the removal in its log.
        """
        committed = self.in_force_at(commit_index)
        since = committed[0] if committed else 0
        return any(index >= since and is_voter(known, member_id) for index, known in self._history)

    @property
    def first(self) -> tuple[int, Configuration] | None:
        return self._history[0] if self._history else None

    def append(self, batch: Batch) -> None:
        configuration = read_configuration(batch)
        if configuration is None:
            raise ValueError(f"the configuration at index {batch.first_index} can't be read")
        self._history.append((batch.first_index, configuration))
        self.current = configuration

    def truncate(self, from_index: int) -> bool:
        """Forget what the log no longer holds; whether the configuration in force changed."""
        before = len(self._history)
        while self._history and self._history[-1][0] >= from_index:
            self._history.pop()
        self.current = self._last()
        return len(self._history) != before

    def compact(self, base_index: int) -> None:
        """Forget what was in force only before `base_index`."""
        while len(self._history) > 1 and self._history[1][0] <= base_index:
            self._history.pop(0)

    def reset(self, index: int, configuration: Configuration) -> None:
        """The log begins anew, and this is in force."""
        self._history = [(index, configuration)]
        self.current = configuration

    def member(self, member_id: int) -> Member | None:
        if self.current is not None:
            for member in self.current.members:
                if member.id == member_id:
                    return member
        return None


def is_voter(configuration: Configuration | None, member_id: int) -> bool:
    return configuration is not None and (
        member_id in configuration.voters or member_id in configuration.voters_outgoing
    )


def replicated_to(configuration: Configuration) -> tuple[int, ...]:
    """Everybody who gets the log: voters of both sides and learners, sorted."""
    return tuple(
        sorted({*configuration.voters, *configuration.voters_outgoing, *configuration.learners})
    )
