"""The storage of one node: its identity, term and vote, and the log."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import (
    AppendLog,
    CompactLog,
    InstallSnapshot,
    LogImage,
    SaveVote,
    SnapshotMeta,
    Vote,
)
from raft_agent.histogram import Histogram
from raft_agent.storage.aside import finish_putting_aside, is_to_be_joined
from raft_agent.storage.compatibility import promised_version
from raft_agent.storage.datadir import (
    SNAPSHOTS_NAME,
    VOTE_NAME,
    DirectoryLock,
    load_identity,
    load_vote,
    load_word,
    make_data_dir,
    save_promise,
    save_word,
)
from raft_agent.storage.errors import StorageError
from raft_agent.storage.files import remedy, replace_file, sync_directory
from raft_agent.storage.format import encode_vote
from raft_agent.storage.log import Log
from raft_agent.storage.mending import mend
from raft_agent.storage.reader import read_batches
from raft_agent.storage.recovery import open_log
from raft_agent.storage.scrub import Scrubber
from raft_agent.storage.snapshots import SnapshotStore, open_snapshots
from raft_agent.storage.writer import LogWriter, Reporter, StorageFailure, VoteWriter
from raft_agent.versions import CLUSTER_VERSIONS, Versions

__all__ = ["Recovered", "StorageFailure", "Store"]

DEFAULT_SEGMENT_BYTES = 16 << 20
DEFAULT_RESIDENT_BYTES = 32 << 20


class Recovered(msgspec.Struct):
    """What the data directory holds. `cluster_id` is "" while the node belongs to no cluster.

    `snapshot`: what the state machine begins with, applied and committed up to its index; its
    blocks come from `Store.snapshots`.
    `is_to_be_joined`: it had another log, which was put aside, and founds no cluster.
    `word_us`: for how long an earlier start may have promised a leader not to vote.
    `promised_version`: the cluster version that this member has promised to know.
    `warnings`: one sentence each for the operator, such as a torn tail that was cut.
    """

    member_id: int
    cluster_id: str
    vote: Vote
    snapshot: SnapshotMeta | None
    log: LogImage
    word_us: int
    warnings: list[str]
    promised_version: int = 1
    is_to_be_joined: bool = False


class Store:
    """Opened with `Store.open`. `append`, `compact`, `install_snapshot`, `save_vote` and
    `found_cluster` only queue; two threads write, and tell through the callbacks of `start`. `read`
    may be called in any thread, and so may what `snapshots` can do.
    """

    def __init__(
        self,
        lock: DirectoryLock,
        recovered: Recovered,
        log: Log,
        snapshots: SnapshotStore,
        vote_writer: VoteWriter,
    ) -> None:
        """Use `Store.open`."""
        self.recovered = recovered
        self.snapshots = snapshots
        self._lock = lock
        self._log = log
        self._vote_writer = vote_writer
        floor = (recovered.vote.floor_term, recovered.vote.floor_index)
        self._log_writer = LogWriter(log, snapshots, floor, lock.check)
        self._log_thread: threading.Thread | None = None
        self._vote_thread: threading.Thread | None = None
        self._scrubber: Scrubber | None = None
        self._promised = recovered.promised_version
        self._promising = threading.Lock()

    @classmethod
    def open(
        cls,
        data_dir: Path,
        *,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        resident_bytes: int = DEFAULT_RESIDENT_BYTES,
        versions: Versions = CLUSTER_VERSIONS,
    ) -> Store:
        """Lock the directory, which is made when it is not there, and recover what it holds. One
        whose files are of other versions, or that needs a cluster version which is none of
        `versions`, is refused and left as it is.

        `segment_bytes`: how large the log's files are; `resident_bytes`: how much of the log's end
        goes into `recovered.log.tail`. Blocks: up to seconds for a large log. Raises StorageError.
        """
        lock: DirectoryLock | None = None
        try:
            make_data_dir(data_dir)
            lock = DirectoryLock(data_dir)
            promised_version(data_dir, versions)
            return cls._open_locked(lock, data_dir, segment_bytes, resident_bytes, versions)
        except BaseException as error:
            if lock is not None:
                lock.release()
            if not isinstance(error, OSError):
                raise
            advice = remedy(error, "Check that the agent's user may write there, and the disk")
            path = error.filename if isinstance(error.filename, str) else str(data_dir)
            raise StorageError(error.strerror or str(error), path, advice=advice) from error

    @classmethod
    def _open_locked(
        cls,
        lock: DirectoryLock,
        data_dir: Path,
        segment_bytes: int,
        resident_bytes: int,
        versions: Versions,
    ) -> Store:
        # A killed agent may have left names that are not on the medium: a vote that is believed now
        # is given again without another write.
        sync_directory(data_dir)
        aside = finish_putting_aside(data_dir)
        # Behind that: what the member before has promised went with its data.
        promised = promised_version(data_dir, versions)
        member_id = load_identity(data_dir)
        mended = mend(data_dir)
        vote, warnings = load_vote(data_dir)
        word_us, word_warnings = load_word(data_dir)
        found = open_snapshots(data_dir / SNAPSHOTS_NAME)
        opened = open_log(
            data_dir,
            vote,
            found.intact,
            found.damaged,
            persist_vote=lambda changed: replace_file(data_dir / VOTE_NAME, encode_vote(changed)),
            segment_bytes=segment_bytes,
            resident_bytes=resident_bytes,
        )
        plan = opened.plan
        recovered = Recovered(
            member_id,
            plan.cluster_id,
            plan.vote,
            plan.snapshot,
            plan.log_image(opened.tail),
            word_us,
            [*mended, *_aside_warnings(aside), *warnings, *word_warnings, *plan.warnings],
            promised,
            is_to_be_joined(data_dir),
        )
        return cls(lock, recovered, opened.log, found.store, VoteWriter(data_dir, plan.vote))

    def start(
        self,
        *,
        post: Callable[[Callable[[], None]], None],
        on_log_persisted: Callable[[int], None],
        on_vote_persisted: Callable[[int], None],
        on_snapshot_installed: Callable[[int, SnapshotMeta | None], None],
        on_failed: Callable[[StorageFailure], None],
    ) -> None:
        """Start the two writing threads.

        They hand all calls of the other callbacks to `post`, for instance
        `loop.call_soon_threadsafe`. `on_log_persisted(seq)` and `on_vote_persisted(seq)`: this
        effect and all before it are on disk. `on_snapshot_installed(index, snapshot)` answers
        `install_snapshot`. `on_failed` comes at most once, and no other call
        after it: nothing that is queued then, or comes later, is written or answered.
        """
        reporter = Reporter(post, on_failed)
        self._log_thread = threading.Thread(
            target=self._log_writer.run,
            args=(
                reporter,
                on_log_persisted,
                on_snapshot_installed,
                self._vote_writer.clear_floor,
            ),
            name="raft-log",
            daemon=True,
        )
        self._vote_thread = threading.Thread(
            target=self._vote_writer.run,
            args=(reporter, on_vote_persisted),
            name="raft-vote",
            daemon=True,
        )
        self._log_thread.start()
        self._vote_thread.start()

    def scrub(
        self,
        interval_s: float,
        *,
        post: Callable[[Callable[[], None]], None],
        on_log_damaged: Callable[[StorageError], None],
        on_snapshot_damaged: Callable[[int, str], None],
    ) -> None:
        """Read log and snapshots again from time to time, until `close` (see `Scrubber`)."""
        self._scrubber = Scrubber(
            self._log.index,
            self.snapshots,
            interval_s=interval_s,
            post=post,
            on_log_damaged=on_log_damaged,
            on_snapshot_damaged=on_snapshot_damaged,
        )
        self._scrubber.start()

    @property
    def fsyncs(self) -> Histogram:
        """How long the medium took for each group of batches."""
        return self._log.fsyncs

    @property
    def queue_length(self) -> int:
        """How many jobs wait for the log's thread."""
        return self._log_writer.queue_length

    @property
    def first_index(self) -> int:
        """The first entry that the log on disk still holds; the next one to come when it is
        empty."""
        return self._log.index.first_index

    def found_cluster(self, cluster_id: str) -> None:
        """The entries to come belong to this cluster. Comes before the first `append`, and is on
        disk with that, not before: an empty log belongs to no cluster.
        """
        self._log_writer.found_cluster(cluster_id)

    def append(self, effect: AppendLog) -> None:
        """Queue the batches for the log; `on_log_persisted` answers."""
        self._log_writer.append(effect)

    def compact(self, upto_index: int) -> None:
        """Queue the deletion of entries up to `upto_index`. Whole segments go, and the last one
        never does. Raises ValueError when no durable snapshot holds them.
        """
        newest = self.snapshots.newest
        if newest is None or upto_index > newest.index:
            raise ValueError(f"no snapshot holds the entries up to {upto_index}")
        self._log_writer.compact(CompactLog(upto_index))

    def install_snapshot(self, effect: InstallSnapshot) -> None:
        """Queue the end of the log for the snapshot that `snapshots` has received, behind all that
        is queued. `on_snapshot_installed` answers: with the snapshot, once that is durable and the
        next entry is the one behind it; or with None, when it was not the one that was announced
        (`SnapshotStore.install` says what that means) and nothing has changed.
        """
        self._log_writer.install_snapshot(effect)

    def save_vote(self, effect: SaveVote) -> None:
        """Queue term and vote for the vote file; `on_vote_persisted` answers."""
        self._vote_writer.save(effect)

    def save_word(self, word_us: int) -> None:
        """From now on this member promises leaders not to vote for so long, and no longer. Blocks
        until that is on disk; raises OSError."""
        save_word(self._lock.data_dir, word_us)

    def save_promise(self, version: int) -> None:
        """From now on no program that does not know this cluster version opens the directory.
        Blocks until that is on disk; raises OSError. May be called in any thread: whoever asks for
        an older one meanwhile takes none back."""
        with self._promising:
            if version >= self._promised:
                save_promise(self._lock.data_dir, version)
                self._promised = version

    def read(self, from_index: int, max_bytes: int) -> tuple[Batch, ...]:
        """Whole consecutive batches from the one that holds `from_index` on: at least one, then as
        many as fit into `max_bytes`.

        Sees what is on disk. Empty when `from_index` is not there, or was cut. Blocks; may be
        called in any thread. Raises StorageError when what it reads is damaged.
        """
        return read_batches(self._log.index, from_index, max_bytes)

    def has_room(self) -> bool:
        """After a failure with a `shortage`: whether a new store could go on writing. Blocks."""
        return self._log.has_room()

    def close(self) -> None:
        """Write what is queued, end the threads, let go of the directory. May be called again."""
        if self._scrubber is not None:
            self._scrubber.stop()
            self._scrubber = None
        if self._log_thread is not None:
            self._log_writer.stop()
            self._log_thread.join()
            self._log_thread = None
        # Last: reaching the vote floor makes the log's thread queue something here.
        if self._vote_thread is not None:
            self._vote_writer.stop()
            self._vote_thread.join()
            self._vote_thread = None
        self._log.close()
        self.snapshots.close()
        self._lock.release()


def _aside_warnings(aside: str) -> list[str]:
    if not aside:
        return []
    return [f"a crash had interrupted it: what this member had before is in {aside} now"]
