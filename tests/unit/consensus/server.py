"""One core on a disk of its own, with logs to start from and ways to look at effects.

The host's work is done here as in the agent: effects are carried out in their order, a message
leaves once what it waits for is durable, a crash loses what was not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TypeVar

from hypothesis import settings

from raft_agent.consensus import invariants
from raft_agent.consensus.batch import Batch, BatchKind, encode
from raft_agent.consensus.log import RaftLog
from raft_agent.consensus.membership import decode_configuration, first_entry
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import (
    AppendLog,
    Applied,
    Apply,
    CompactLog,
    Configuration,
    Effect,
    Event,
    InstallSnapshot,
    LeaderStamp,
    LogImage,
    LogPersisted,
    LogRead,
    Member,
    Message,
    Note,
    Propose,
    ReadLog,
    ReadSnapshot,
    Received,
    SaveVote,
    Send,
    Settings,
    SnapshotInstalled,
    SnapshotMeta,
    SnapshotRead,
    SnapshotTaken,
    SnapshotWritten,
    TimerExpired,
    Vote,
    VotePersisted,
    WriteSnapshot,
)
from tests.unit.consensus.snapshot_files import SnapshotFile, SnapshotFiles, snapshot_of

SETTINGS = Settings()
HEARTBEAT_US = SETTINGS.heartbeat_interval_us
MIN_TIMEOUT_US = SETTINGS.election_timeout_min_us
MAX_TIMEOUT_US = SETTINGS.election_timeout_max_us

# For tests with generated examples: a loaded machine is no failure.
examples = settings(deadline=None, max_examples=60)

T = TypeVar("T")


def configuration_of(size: int) -> Configuration:
    """Voters with the ids 1 … size and the names n1 … n<size>."""
    members = tuple(Member(i, f"n{i}", f"n{i}:5555") for i in range(1, size + 1))
    return Configuration("c1", members, tuple(range(1, size + 1)))


def entry(index: int, term: int, *, count: int = 1, payload: bytes = b"") -> Batch:
    return encode(BatchKind.COMMANDS, index, term, count, payload or b"%d@%d" % (index, term))


def log_of(*terms: int, size: int = 3) -> list[Batch]:
    """A log whose entry i is of the i-th term, one a batch; the first is the configuration."""
    assert terms[0] == 1
    rest = [entry(index, term) for index, term in enumerate(terms[1:], 2)]
    return [first_entry(configuration_of(size)), *rest]


def terms_of(node: Node) -> list[int]:
    return [node.log.term_at(index) for index in range(1, node.log.last_index + 1)]


def image_of(
    batches: Sequence[Batch],
    resident_from: int = 1,
    *,
    base: tuple[int, int] = (0, 0),
    known: tuple[tuple[int, Configuration], ...] = (),
) -> LogImage:
    """What the storage would find; batches that start before `resident_from` are on disk only.
    `known`: the configuration in force at the base, and where it stands."""
    runs: list[tuple[int, int]] = []
    for batch in batches:
        if not runs or runs[-1][1] != batch.term:
            runs.append((batch.first_index, batch.term))
    found = tuple(
        (batch.first_index, decode_configuration(batch.payload))
        for batch in batches
        if batch.kind == BatchKind.CONFIGURATION
    )
    return LogImage(
        base_index=base[0],
        base_term=base[1],
        last_index=batches[-1].last_index if batches else base[0],
        term_runs=tuple(runs),
        configurations=known + found,
        tail=tuple(batch for batch in batches if batch.first_index >= resident_from),
    )


def of(kind: type[T], effects: Iterable[Effect]) -> list[T]:
    return [effect for effect in effects if isinstance(effect, kind)]


def sends(kind: type[T], effects: Iterable[Effect], to: int = 0) -> list[T]:
    """The messages of `kind` among the effects, to one peer or (0) to all."""
    return [
        effect.message
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, kind) and to in (0, effect.to)
    ]


def notes(effects: Iterable[Effect]) -> list[str]:
    return [note.kind for note in of(Note, effects)]


class Server:
    """One core and its disk. `writes`, `saves`, `applies`, `reads` and `installs` say whether log
    writes, vote writes, applying, reading and all that concerns snapshot files are done at once;
    else the test calls the method for it.
    """

    def __init__(
        self,
        member_id: int = 1,
        *,
        size: int = 3,
        log: Sequence[Batch] | None = None,
        vote: Vote | None = None,
        settings: Settings = SETTINGS,
        resident_from: int = 1,
        now_us: int = 0,
        name: str = "",
        address: str = "",
        peer_names: tuple[str, ...] = (),
        bootstrap: bool = False,
        word_us: int = 0,
    ) -> None:
        self.id = member_id
        self.name = name or f"n{member_id}"
        self.address = address or f"{self.name}:5555"
        self.peer_names = peer_names
        self.bootstrap = bootstrap
        self.word_us = word_us
        self.settings = settings
        self.disk = list(log_of(1, size=size) if log is None else log)
        self.disk_vote = vote or Vote(self.disk[-1].term if self.disk else 0)
        self.disk_base = (0, 0)
        self.base_configuration: tuple[tuple[int, Configuration], ...] = ()
        self.snapshots = SnapshotFiles()
        self.writes = self.saves = self.applies = self.reads = self.installs = True
        self.now_us = now_us
        self.starts = 0
        self.start(resident_from)

    def start(self, resident_from: int = 1) -> None:
        """(Re)start from what the disk holds; whatever was not durable is gone."""
        self.starts += 1
        self.writing: deque[AppendLog] = deque()
        self.saving: deque[SaveVote] = deque()
        self.reading: deque[ReadLog] = deque()
        self.applying: deque[Apply] = deque()
        self.snapshot_work: deque[ReadSnapshot | WriteSnapshot | InstallSnapshot] = deque()
        self.held: list[Send] = []
        self.outbox: list[Send] = []
        self.applied: list[Batch] = []
        self.history: list[Effect] = []
        self.log_durable = self.vote_durable = 0
        snapshot = self._recover()
        self.node = Node(
            member_id=self.id,
            name=self.name,
            address=self.address,
            peer_names=self.peer_names,
            vote=self.disk_vote,
            log=image_of(
                self.disk, resident_from, base=self.disk_base, known=self.base_configuration
            ),
            snapshot=snapshot,
            settings=self.settings,
            seed=self.id * 1000 + self.starts,
            now_us=self.now_us,
            bootstrap=self.bootstrap,
            word_us=self.word_us,
        )

    def _recover(self) -> SnapshotMeta | None:
        """The newest snapshot. A log that does not lead up to it, because of a crash between the
        snapshot and the cut of the log, is forgotten now."""
        newest = self.snapshots.newest
        if newest is None:
            return None
        self.applied = newest.applied
        point = (newest.meta.index, newest.meta.term)
        if point != self.disk_base and all((b.last_index, b.term) != point for b in self.disk):
            self._forget_log(newest.meta)
        return newest.meta

    def _forget_log(self, meta: SnapshotMeta) -> None:
        self.disk = []
        self.disk_base = (meta.index, meta.term)
        self.base_configuration = ((meta.configuration_index, meta.configuration),)

    # --- what the test makes happen

    def step(self, event: Event) -> list[Effect]:
        """Take in the event and what follows from it at once; all effects, in order."""
        seen: list[Effect] = []
        events: deque[Event] = deque([event])
        while events:
            effects = self.node.step(events.popleft(), self.now_us)
            invariants.check(self.node)
            seen += effects
            for effect in effects:
                self._carry_out(effect)
            events.extend(self._completions())
            self._let_go()
        self.history += seen
        return seen

    def receive(self, sender: int, message: Message) -> list[Effect]:
        return self.step(Received(sender, message))

    def tick(
        self, *, leader_silence_us: int | None = None, stamp: LeaderStamp | None = None
    ) -> list[Effect]:
        """Let time pass up to the deadline that the core has named, and tell it."""
        deadline = self.node.next_deadline_us
        assert deadline is not None
        self.now_us = max(self.now_us, deadline)
        return self.step(TimerExpired(leader_silence_us, stamp))

    def propose(self, payload: bytes = b"x", *, tag: int = 1, count: int = 1) -> list[Effect]:
        return self.step(Propose(tag, count, payload))

    def write_log(self, upto_seq: int | None = None) -> list[Effect]:
        """The log writes under way (up to one of them) become durable."""
        done = self._written(upto_seq)
        return self.step(LogPersisted(done)) if done else []

    def save_vote(self) -> list[Effect]:
        done = self._saved()
        return self.step(VotePersisted(done)) if done else []

    def read_log(self) -> list[Effect]:
        """Answer the oldest ReadLog from disk."""
        return self.step(self.answer_to(self.reading.popleft()))

    def finish_apply(self) -> list[Effect]:
        return self.step(Applied(self.applying.popleft().batches[-1].last_index))

    def take_snapshot(self, compact_to: int | None = None) -> list[Effect]:
        """Of what is applied now; the log is needed only behind `compact_to`, or (None) behind the
        snapshot before."""
        before = self.snapshots.newest
        if compact_to is None:
            compact_to = before.meta.index if before else 0
        known = self.node.configuration_at(self.node.applied_index)
        assert known is not None
        file = snapshot_of(self.applied, *known)
        assert file.meta.index == self.node.applied_index
        self.snapshots.keep(file)
        return self.step(SnapshotTaken(file.meta, compact_to))

    def do_snapshot_work(self) -> list[Effect]:
        """Answer the oldest question that concerns a snapshot file."""
        return self.step(self._snapshot_done())

    def answer_to(self, read: ReadLog) -> LogRead:
        taken: list[Batch] = []
        size = 0
        for batch in self.disk:
            if batch.last_index < read.from_index:
                continue
            if taken and size + len(batch.record) > read.max_bytes:
                break
            taken.append(batch)
            size += len(batch.record)
        return LogRead(read.purpose, read.from_index, tuple(taken))

    # --- the host's work

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self.held.append(effect)
        elif isinstance(effect, AppendLog):
            self.writing.append(effect)
        elif isinstance(effect, SaveVote):
            self.saving.append(effect)
        elif isinstance(effect, ReadLog):
            self.reading.append(effect)
        elif isinstance(effect, Apply):
            self.applied += effect.batches
            self.applying.append(effect)
        elif isinstance(effect, ReadSnapshot | WriteSnapshot | InstallSnapshot):
            self.snapshot_work.append(effect)
        elif isinstance(effect, CompactLog):
            self._compact(effect.upto_index)

    def _compact(self, upto_index: int) -> None:
        gone = [batch for batch in self.disk if batch.last_index <= upto_index]
        assert gone[-1].last_index == upto_index, "a log is compacted between batches"
        found = image_of(gone, known=self.base_configuration).configurations
        self.base_configuration = found[-1:]
        self.disk_base = (upto_index, gone[-1].term)
        self.disk = self.disk[len(gone) :]

    def _snapshot_done(self) -> Event:
        work = self.snapshot_work.popleft()
        if isinstance(work, ReadSnapshot):
            data = self.snapshots.read(work.index, work.offset, work.max_bytes)
            return SnapshotRead(work.peer, work.index, work.offset, data)
        if isinstance(work, WriteSnapshot):
            self.snapshots.write(work)
            return SnapshotWritten(work.index, work.offset + len(work.data))
        assert not self.writing, "what was to be written before is written first"
        file = self.snapshots.complete(work)
        if file is not None:
            self._install(file)
        return SnapshotInstalled(work.index, file.meta if file else None)

    def _install(self, file: SnapshotFile) -> None:
        self.snapshots.keep(file)
        self._forget_log(file.meta)
        self.applied = file.applied

    def _completions(self) -> Iterable[Event]:
        if self.saves and (saved := self._saved()):
            yield VotePersisted(saved)
        if self.writes and (written := self._written(None)):
            yield LogPersisted(written)
        while self.applies and self.applying:
            yield Applied(self.applying.popleft().batches[-1].last_index)
        while self.reads and self.reading:
            yield self.answer_to(self.reading.popleft())
        while self.installs and self.snapshot_work and not self.writing:
            yield self._snapshot_done()

    def _written(self, upto_seq: int | None) -> int:
        done = 0
        while self.writing and (upto_seq is None or self.writing[0].seq <= upto_seq):
            write = self.writing.popleft()
            if write.truncate_from:
                self.disk = [b for b in self.disk if b.first_index < write.truncate_from]
            self.disk += write.batches
            done = self.log_durable = write.seq
        return done

    def _saved(self) -> int:
        done = 0
        while self.saving:
            save = self.saving.popleft()
            floor = (self.disk_vote.floor_term, self.disk_vote.floor_index)
            self.disk_vote = Vote(save.term, save.voted_for, *floor)
            done = self.vote_durable = save.seq
        return done

    def _let_go(self) -> None:
        held, self.held = self.held, []
        for send in held:
            if send.after_log <= self.log_durable and send.after_vote <= self.vote_durable:
                self.outbox.append(send)
            else:
                self.held.append(send)


def first_resident_index(log: RaftLog) -> int:
    """The first entry that is in memory; last_index + 1 when none is."""
    batches = log.resident_batches
    return batches[0].first_index if batches else log.last_index + 1
