"""What a rebuild does to a data directory: it cuts a damaged log, and promises for its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from raft_agent.consensus.batch import Batch, BatchKind, encode
from raft_agent.consensus.membership import encode_configuration
from raft_agent.consensus.types import Configuration, Member
from raft_agent.storage.datadir import SNAPSHOTS_NAME, DirectoryLock, load_vote
from raft_agent.storage.errors import StorageError
from raft_agent.storage.format import SEGMENT_HEADER_SIZE, parse_segment_name
from raft_agent.storage.mending import (
    REQUEST_NAME,
    InUseError,
    OnlyVoterError,
    UnusableError,
    request_mending,
    request_offline,
)
from raft_agent.storage.snapshots import open_snapshots
from raft_agent.storage.store import Store
from tests.unit.storage.support import (
    CLUSTER,
    flip,
    make_batch,
    make_log,
    names,
    opened,
    take_snapshot,
)


@pytest.fixture
def log(tmp_path: Path) -> list[Batch]:
    """Of several segments."""
    batches = make_log([3_000, 10, 0, 700] * 60)
    with opened(tmp_path) as driver:
        for batch in batches:
            driver.append(batch)
    return batches


def segments(data_dir: Path) -> list[Path]:
    return [data_dir / "log" / name for name in names(data_dir / "log")]


def refuses(data_dir: Path) -> str:
    with pytest.raises(StorageError) as caught:
        Store.open(data_dir)
    return str(caught.value)


def start(data_dir: Path) -> Store:
    return Store.open(data_dir, segment_bytes=64 << 10)


def test_an_intact_log_stays_as_it_is(tmp_path: Path, log: list[Batch]) -> None:
    request_mending(tmp_path)
    store = start(tmp_path)
    assert store.recovered.log.last_index == log[-1].last_index
    assert store.recovered.warnings == []
    assert (store.recovered.vote.floor_term, store.recovered.vote.floor_index) == (0, 0)
    assert not (tmp_path / REQUEST_NAME).exists()
    store.close()


def test_a_log_is_cut_in_front_of_its_first_damage(tmp_path: Path, log: list[Batch]) -> None:
    assert len(segments(tmp_path)) >= 3
    flip(segments(tmp_path)[1], SEGMENT_HEADER_SIZE + 5_000)
    assert "raftctl rebuild" in refuses(tmp_path)
    request_mending(tmp_path)
    store = start(tmp_path)
    recovered = store.recovered
    last = recovered.log.last_index
    assert 0 < last < log[-1].last_index
    assert (recovered.vote.floor_term, recovered.vote.floor_index) == (
        log[-1].term,
        log[-1].last_index,
    )
    assert any("was cut there" in warning for warning in recovered.warnings)
    assert [b.first_index for b in store.read(last, 1)][-1] <= last
    store.close()
    again = start(tmp_path)
    assert again.recovered.log.last_index == last
    assert again.recovered.vote.floor_index == log[-1].last_index
    again.close()


def test_the_log_goes_on_where_it_was_cut(tmp_path: Path, log: list[Batch]) -> None:
    flip(segments(tmp_path)[1], SEGMENT_HEADER_SIZE + 5_000)
    request_mending(tmp_path)
    with opened(tmp_path) as driver:
        last = driver.store.recovered.log.last_index
        missing = [batch for batch in log if batch.first_index > last]
        driver.append(*missing)
    with opened(tmp_path) as driver:
        assert driver.store.recovered.log.last_index == log[-1].last_index
        assert driver.store.recovered.vote.floor_index == 0, "a leader has filled it again"


def test_the_end_that_the_agent_knew_is_the_floor_when_it_is_further(
    tmp_path: Path, log: list[Batch]
) -> None:
    flip(segments(tmp_path)[0], SEGMENT_HEADER_SIZE + 5_000)
    request_mending(tmp_path, 99, 100_000)
    store = start(tmp_path)
    vote = store.recovered.vote
    assert (vote.floor_term, vote.floor_index) == (99, 100_000)
    assert log[-1].last_index < 100_000
    store.close()


def test_without_a_header_behind_the_damage_no_entry_of_these_terms_is_enough(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as driver:
        driver.save_vote(1, 4, 0)
        driver.append(*make_log([10]))
        driver.append(make_batch(2, payload=b"y" * 400))
    (path,) = segments(tmp_path)
    data = bytearray(path.read_bytes())
    at = data.find(b"y" * 400) - 40
    data[at : at + 480] = bytes(b ^ 0x55 for b in data[at : at + 480])
    path.write_bytes(data)
    refuses(tmp_path)
    request_mending(tmp_path)
    store = start(tmp_path)
    vote = store.recovered.vote
    assert (vote.floor_term, vote.floor_index) == (5, 0)
    assert store.recovered.log.last_index == 1
    store.close()


def test_what_is_left_begins_with_a_snapshot_when_the_log_is_damaged_at_its_beginning(
    tmp_path: Path, log: list[Batch]
) -> None:
    snapshots = open_snapshots(tmp_path / SNAPSHOTS_NAME).store
    index = log[100].last_index
    meta = take_snapshot(snapshots, index, log[100].term)
    snapshots.close()
    flip(segments(tmp_path)[0], SEGMENT_HEADER_SIZE + 60)
    request_mending(tmp_path)
    store = start(tmp_path)
    assert store.recovered.snapshot == meta
    assert store.recovered.log.base_index == store.recovered.log.last_index == index
    assert store.recovered.vote.floor_index == log[-1].last_index
    store.close()


def test_a_log_of_which_nothing_is_left_is_refused_and_kept(
    tmp_path: Path, log: list[Batch]
) -> None:
    flip(segments(tmp_path)[0], SEGMENT_HEADER_SIZE + 60)
    before = [path.read_bytes() for path in segments(tmp_path)]
    request_mending(tmp_path)
    assert "raftctl join" in refuses(tmp_path)
    assert [path.read_bytes() for path in segments(tmp_path)] == before
    assert log


def test_a_log_behind_a_damaged_snapshot_is_refused_before_anything_is_promised(
    tmp_path: Path, log: list[Batch]
) -> None:
    snapshots = open_snapshots(tmp_path / SNAPSHOTS_NAME).store
    first = (parse_segment_name(segments(tmp_path)[1].name) or 0) - 1
    batch = next(batch for batch in log if batch.last_index == first)
    take_snapshot(snapshots, first, batch.term)
    snapshots.close()
    segments(tmp_path)[0].unlink()
    flip(next((tmp_path / SNAPSHOTS_NAME).iterdir()), 200)
    with pytest.raises(UnusableError, match="no snapshot up to there is intact") as caught:
        request_offline(tmp_path)
    assert "raftctl join" in caught.value.advice
    assert not (tmp_path / REQUEST_NAME).exists()
    assert "raftctl join" in refuses(tmp_path)


def test_identity_term_and_vote_stay(tmp_path: Path, log: list[Batch]) -> None:
    with opened(tmp_path) as driver:
        driver.save_vote(1, 7, 42)
        member_id = driver.store.recovered.member_id
    flip(segments(tmp_path)[1], SEGMENT_HEADER_SIZE + 5_000)
    request_mending(tmp_path)
    store = start(tmp_path)
    assert store.recovered.member_id == member_id
    vote, _ = load_vote(tmp_path)
    assert (vote.term, vote.voted_for) == (7, 42)
    assert store.recovered.log.last_index < log[-1].last_index
    store.close()


def test_a_directory_is_told_offline_only_when_no_agent_runs_on_it(
    tmp_path: Path, log: list[Batch]
) -> None:
    assert log
    lock = DirectoryLock(tmp_path)
    with pytest.raises(InUseError):
        request_offline(tmp_path)
    lock.release()
    assert not (tmp_path / REQUEST_NAME).exists()
    request_offline(tmp_path)
    assert (tmp_path / REQUEST_NAME).exists()
    with pytest.raises(FileNotFoundError):
        request_offline(tmp_path / "none")


def with_voters(data_dir: Path, others: int, *, late: bool = False) -> None:
    """A log of several segments of this member and `others`; `late`: the others became members with
    its last entry."""
    with opened(data_dir) as driver:
        own = driver.store.recovered.member_id

        def members(first_index: int, term: int, count: int) -> Batch:
            ids = [own, *range(own + 1, own + 1 + count)]
            named = tuple(Member(each, f"n{each}", f"h:{each % 60_000 + 1}") for each in ids)
            payload = encode_configuration(Configuration(CLUSTER, named, tuple(ids)))
            return encode(BatchKind.CONFIGURATION, first_index, term, 1, payload)

        driver.append(members(1, 1, 0 if late else others))
        batches = make_log([3_000, 10, 700] * 60, first_index=2)
        driver.append(*batches)
        if late:
            last = batches[-1]
            driver.append(members(last.last_index + 1, last.term, others))


def damage(data_dir: Path) -> None:
    flip(segments(data_dir)[0], SEGMENT_HEADER_SIZE + 9_000)


def test_the_only_voters_damaged_log_is_not_cut_unless_that_is_forced(tmp_path: Path) -> None:
    with_voters(tmp_path, 0)
    damage(tmp_path)
    with pytest.raises(OnlyVoterError, match=r"0001\.seg, byte \d+: "):
        request_offline(tmp_path)
    assert not (tmp_path / REQUEST_NAME).exists()
    DirectoryLock(tmp_path).release()  # it was let go
    request_offline(tmp_path, force=True)
    assert (tmp_path / REQUEST_NAME).exists()


@pytest.mark.parametrize("late", [False, True])
def test_a_damaged_log_that_others_can_refill_is_cut(tmp_path: Path, late: bool) -> None:
    with_voters(tmp_path, 2, late=late)
    damage(tmp_path)
    request_offline(tmp_path)
    assert (tmp_path / REQUEST_NAME).exists()


def test_the_only_voters_intact_log_may_be_read_anew(tmp_path: Path) -> None:
    with_voters(tmp_path, 0)
    request_offline(tmp_path)
    assert (tmp_path / REQUEST_NAME).exists()
