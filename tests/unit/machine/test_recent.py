"""The history of keys keeps the same pieces, however its changes come; a view of it lets go of what
was read."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_agent.machine import recent
from raft_agent.machine.recent import History
from raft_agent.machine.watches import KeyChange


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent, "PIECE_ITEMS", 5)
        patch.setattr(recent, "_PIECE_BYTES", 40)
        yield


sizes = st.one_of(st.none(), st.integers(0, 60))


@given(st.lists(st.lists(sizes, max_size=12), max_size=12), st.integers(0, 20))
def test_changes_that_come_together_end_up_where_each_alone_would(
    batches: list[list[int | None]], keep: int
) -> None:
    together, alone = History(keep), History(keep)
    revision = 0
    for batch in batches:
        changes = []
        for size in batch:
            revision += 1
            changes.append(KeyChange("k", None if size is None else bytes(size), revision, 1))
        together.extend(changes)
        for change in changes:
            alone.append(change)
        assert together.compacted_revision == alone.compacted_revision
        assert list(together.frozen()) == list(alone.frozen())
        assert together.since(revision - 3, 2) == alone.since(revision - 3, 2)


def test_what_a_view_has_given_out_is_freed_while_it_is_read() -> None:
    """All together, at the end of a snapshot, would be a pause."""
    history = History(20)
    for revision in range(1, 21):
        history.append(KeyChange("k", bytes([revision]) * 2, revision, 1))
    view = history.frozen()
    first = next(view)
    for revision in range(21, 101):
        history.append(KeyChange("k", b"", revision, 1))
    assert history.compacted_revision >= 20
    held = sys.getrefcount(first)
    for _ in range(5):
        next(view)
    assert sys.getrefcount(first) == held - 1
    assert [change.revision for change in view] == list(range(7, 21))
