"""A cluster that watches can be tried on: members that apply one log, each as far as it has come.

There is no Raft here: the log is what would have been committed, whoever led. Members stop, start
again from a snapshot of their own, and take over those of others, and their history is short. A
watcher reads as slowly as it likes, loses its connection, and goes on at another member, by what
docs/protocol.md says and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from raft_agent.api import protocol
from raft_agent.api.caller import Caller
from raft_agent.api.key_streams import KeyEventEncoder, KeyStream
from raft_agent.api.rights import Principal
from raft_agent.consensus import batch
from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.machine.blocks import encode_block
from raft_agent.machine.commands import (
    Command,
    Delete,
    GrantLease,
    Put,
    PutLeased,
    RevokeLease,
    SetSetting,
    Transact,
    encode_commands,
    join_commands,
)
from raft_agent.machine.machine import Machine
from raft_agent.machine.transactions import DeleteKey, DeletePrefix, PutKey
from raft_agent.machine.watches import KeyChange
from raft_agent.tls.identity import Role

MEMBERS = 3
HISTORY_KEEP = 8
STREAM = 7
BOOKMARK_MS = 1000

KEYS = ("a", "a/1", "a/2", "b")
PATTERNS = (("a/1", False), ("a/", True), ("", True), ("none", False))


class Timer:
    """The timer of a bookmark; it rings when the test says so."""

    def __init__(self, rings: Any) -> None:
        self.rings = rings

    def cancel(self) -> None:
        self.rings = None


class FakeCaller(Caller):
    """A connection whose other side reads when it wants to."""

    def __init__(self) -> None:
        super().__init__(Principal("a test", Role.ADMIN))
        self.replies: list[tuple[object, protocol.Error | None]] = []
        self.unread: list[tuple[Any, int]] = []
        self.most_unread = 0

    def reply(self, _request_id: int, result: object, _data_bytes: int = 0) -> None:
        self.replies.append((result, None))

    def fail(self, _request_id: int, error: protocol.Error) -> None:
        self.replies.append((None, error))

    def push(self, _stream_id: int, item: Any, data_bytes: int) -> None:
        if not isinstance(item, protocol.KeyEvent):
            item = protocol.msgspec.msgpack.decode(item, type=protocol.KeyEvent)
        self.unread.append((item, max(data_bytes, 1)))
        self.most_unread = max(self.most_unread, self.unsent_bytes())

    def push_end(self, _stream_id: int, error: protocol.Error) -> None:
        self.unread.append((error, 0))

    def forget_pushes(self, _stream_id: int) -> None:
        self.unread.clear()

    def unsent_bytes(self) -> int:
        return sum(size for _, size in self.unread)


class Member:
    """One node's state machine, and who watches it."""

    def __init__(self) -> None:
        self.machine = Machine(history_keep=HISTORY_KEEP)
        self.encoder = KeyEventEncoder()
        self.starts = 0

    def snapshot(self) -> list[bytes]:
        view = self.machine.begin_snapshot()
        blocks = []
        while (portion := view.next_items()) is not None:
            blocks.append(encode_block(portion))
        view.close()
        return blocks


@dataclass
class Cluster:
    """`log` is committed; `truth` has applied all of it, and `all_changes` is what it changed."""

    log: list[Batch] = field(default_factory=list)
    members: list[Member] = field(default_factory=lambda: [Member() for _ in range(MEMBERS)])
    truth: Machine = field(default_factory=Machine)
    all_changes: list[KeyChange] = field(default_factory=list)
    term: int = 1

    def __post_init__(self) -> None:
        self.truth.watches.watch_prefix("", self.all_changes.extend)

    def commit(self, commands: list[Command]) -> None:
        payload = join_commands(1000 + len(self.log), len(commands), [encode_commands(commands)])
        first = self.truth.last_applied + 1
        made = batch.encode(BatchKind.COMMANDS, first, self.term, len(commands), payload)
        self.log.append(made)
        self.truth.apply(made)

    def apply(self, number: int, count: int) -> None:
        """Member `number` applies `count` batches more."""
        machine = self.members[number].machine
        for made in self.log:
            if count and made.first_index == machine.last_applied + 1:
                machine.apply(made)
                count -= 1

    def restart(self, number: int) -> None:
        """It starts from a snapshot of its own; its connections are gone."""
        member = self.members[number]
        member.machine = Machine.restore(member.snapshot())
        member.starts += 1

    def install(self, number: int, sender: int) -> None:
        """It takes over another one's snapshot, if that is newer."""
        mine, other = self.members[number].machine, self.members[sender]
        if other.machine.last_applied > mine.last_applied:
            mine.adopt(Machine.restore(other.snapshot()))

    def changes(self, after: int, upto: int) -> list[KeyChange]:
        return [change for change in self.all_changes if after < change.revision <= upto]


@dataclass
class Watcher:
    """Goes on where it is, as the protocol's document says. `given`: the events of each revision
    that it gave to whoever wants to know; `reads`: (revision, keys) where it had to read anew.
    """

    cluster: Cluster
    key: str
    prefix: bool
    position: int = 0
    bookmarks: list[int] = field(default_factory=list)
    given: list[list[protocol.KeyEvent]] = field(default_factory=list)
    log: list[tuple[str, int]] = field(default_factory=list)
    compacted: int = 0
    _together: list[protocol.KeyEvent] = field(default_factory=list)
    caller: FakeCaller | None = None
    member: int = 0
    _starts: int = 0
    timer: Timer | None = None

    def matches(self, key: str) -> bool:
        return key.startswith(self.key) if self.prefix else key == self.key

    @property
    def is_connected(self) -> bool:
        return (
            self.caller is not None
            and self.cluster.members[self.member].starts == self._starts
            and STREAM in self.caller.streams
        )

    def disconnect(self) -> None:
        if self.caller is not None:
            for stream in list(self.caller.streams.values()):
                stream.stop()
        self.caller = None

    def connect(self, number: int) -> None:
        """Watch at another member, from the revision behind the last that is complete."""
        self.disconnect()
        self._together.clear()
        member = self.cluster.members[number]
        self.caller, self.member, self._starts = FakeCaller(), number, member.starts
        request = protocol.WatchKeys(STREAM, self.key, self.prefix, self.position + 1, BOOKMARK_MS)
        stream = KeyStream(
            self.caller, request, member.machine, member.encoder, call_later=self._call_later
        )
        stream.start()
        [(_, error)] = self.caller.replies
        if error is not None:
            self._was_compacted(error)

    def _call_later(self, _delay_s: float, rings: Any) -> Timer:
        self.timer = Timer(rings)
        return self.timer

    def ring(self) -> None:
        """The time of a bookmark has come."""
        if self.is_connected and self.timer is not None and self.timer.rings is not None:
            self.timer.rings()

    def read(self, count: int) -> None:
        """Take `count` items from the connection, which then has room for more."""
        caller = self.caller
        if caller is None or not self.is_connected:
            return
        for _ in range(count):
            if not caller.unread:
                break
            item, _ = caller.unread.pop(0)
            if isinstance(item, protocol.Error):
                self._was_compacted(item)
                return
            self._take(item)
        for stream in list(caller.streams.values()):
            if stream.waiting:
                stream.pump()

    def read_all(self) -> None:
        while self.is_connected and self.caller is not None and self.caller.unread:
            self.read(1000)

    def _take(self, item: protocol.KeyEvent) -> None:
        if item.type == "bookmark":
            self.bookmarks.append(item.revision)
            self.log.append(("bookmark", item.revision))
            self.position = item.revision
            return
        self._together.append(item)
        if not item.more:
            self.given.append(self._together)
            self.log.append(("events", item.revision))
            self.position = item.revision
            self._together = []

    def _was_compacted(self, error: protocol.Error) -> None:
        """Read the keys where it is, and go on behind that."""
        assert error.code is protocol.ErrorCode.COMPACTED
        assert error.revision > self.position + 1
        self.compacted += 1
        self.disconnect()
        machine = self.cluster.members[self.member].machine
        self.log.append(("read", machine.revision))
        self.position = machine.revision

    def expected(self) -> list[list[KeyChange]]:
        """What it must have been given: all revisions up to its position that concern it, but for
        those that it read over."""
        read_over: set[int] = set()
        place = 0
        for kind, revision in self.log:
            if kind == "read":
                read_over.update(range(place + 1, revision + 1))
            place = revision
        groups: dict[int, list[KeyChange]] = {}
        for change in self.cluster.changes(0, self.position):
            if self.matches(change.key) and change.revision not in read_over:
                groups.setdefault(change.revision, []).append(change)
        return list(groups.values())


def event_of(change: KeyChange, more: bool) -> protocol.KeyEvent:
    kind = "delete" if change.value is None else "put"
    return protocol.KeyEvent(
        kind, change.key, change.value or b"", change.revision, change.index, change.lease, more
    )


# --- what happens -------------------------------------------------------------------------------

names = st.sampled_from(KEYS)
values = st.sampled_from([b"", b"x", b"y" * 40])
members = st.integers(0, MEMBERS - 1)
counts = st.integers(1, 6)
commands = st.one_of(
    st.builds(Put, names, values),
    st.builds(Put, names, values),
    st.builds(Delete, names),
    st.builds(GrantLease, st.just(5000)),
    st.builds(PutLeased, names, values, st.just(-1), st.integers(1, 6)),
    st.builds(RevokeLease, st.integers(1, 6)),
    st.builds(
        Transact,
        st.just([]),
        st.lists(
            st.one_of(
                st.builds(PutKey, names, values),
                st.builds(DeleteKey, names),
                st.builds(DeletePrefix, st.just("a/")),
            ),
            min_size=1,
            max_size=4,
        ),
        st.just([]),
    ),
    st.builds(SetSetting, st.just("history_keep"), st.integers(0, HISTORY_KEEP)),
)
happenings = st.one_of(
    st.tuples(st.just("commit"), st.lists(commands, min_size=1, max_size=4)),
    st.tuples(st.just("commit"), st.lists(commands, min_size=1, max_size=4)),
    st.tuples(st.just("apply"), members, counts),
    st.tuples(st.just("apply"), members, counts),
    st.tuples(st.just("elect")),
    st.tuples(st.just("restart"), members),
    st.tuples(st.just("install"), members, members),
    st.tuples(st.just("connect"), members),
    st.tuples(st.just("disconnect")),
    st.tuples(st.just("read"), counts),
    st.tuples(st.just("read"), counts),
    st.tuples(st.just("ring")),
)
histories = st.lists(happenings, max_size=40)
patterns = st.sampled_from(PATTERNS)


def happen(cluster: Cluster, watcher: Watcher, happening: tuple[Any, ...]) -> None:
    match happening:
        case ("commit", list() as items):
            cluster.commit(items)
        case ("apply", number, count):
            cluster.apply(number, count)
        case ("elect",):
            cluster.term += 1
        case ("restart", number):
            cluster.restart(number)
        case ("install", number, sender):
            cluster.install(number, sender)
        case ("connect", number):
            watcher.connect(number)
        case ("disconnect",):
            watcher.disconnect()
        case ("read", count):
            watcher.read(count)
        case ("ring",):
            watcher.ring()


def settle(cluster: Cluster, watcher: Watcher) -> None:
    """In the end all members have applied everything, and the watcher reads all there is."""
    for number in range(MEMBERS):
        cluster.apply(number, len(cluster.log))
    while watcher.position < cluster.truth.revision:
        if not watcher.is_connected:
            watcher.connect(0)
        watcher.read_all()
        watcher.ring()
        watcher.read_all()


def run(pattern: tuple[str, bool], history: list[tuple[Any, ...]]) -> Watcher:
    """All of it; the watcher begins at the beginning, at the first member."""
    cluster = Cluster()
    watcher = Watcher(cluster, *pattern)
    watcher.connect(0)
    for happening in history:
        happen(cluster, watcher, happening)
    settle(cluster, watcher)
    return watcher
