"""A member keeps the word that it gave to a leader across restarts with other timeouts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raft_agent.runtime.word import Word
from raft_agent.storage.store import Store


def given(data_dir: Path, word_us: int) -> tuple[int, list[str]]:
    """What a start that promises so much finds of earlier ones, and the events it makes."""
    events: list[str] = []

    async def main() -> int:
        store = Store.open(data_dir)
        try:
            word = Word(store, word_us)
            word.give(lambda kind, **_facts: events.append(kind))
            word.close()
            return store.recovered.word_us
        finally:
            store.close()

    return asyncio.run(main()), events


def test_the_longest_word_is_found_by_the_next_start(tmp_path: Path) -> None:
    assert given(tmp_path, 150_000) == (0, [])
    assert given(tmp_path, 900_000_000) == (150_000, [])
    assert given(tmp_path, 150_000) == (900_000_000, ["word_kept"])
    assert given(tmp_path, 150_000) == (900_000_000, ["word_kept"])


def test_a_shorter_word_counts_once_the_longer_one_is_kept(tmp_path: Path) -> None:
    given(tmp_path, 30_000)

    async def main() -> None:
        store = Store.open(tmp_path)
        saved = asyncio.Event()
        loop = asyncio.get_running_loop()
        save_word = store.save_word

        def save(word_us: int) -> None:
            save_word(word_us)
            loop.call_soon_threadsafe(saved.set)

        store.save_word = save  # type: ignore[method-assign]
        try:
            Word(store, 10_000).give(lambda _kind, **_facts: None)
            await saved.wait()
        finally:
            store.close()

    asyncio.run(main())
    assert given(tmp_path, 10_000) == (10_000, [])


def test_a_damaged_word_is_taken_for_the_longest_that_can_be(tmp_path: Path) -> None:
    given(tmp_path, 150_000)
    path = tmp_path / "word"
    path.write_bytes(path.read_bytes().replace(b"150000", b"150001"))
    store = Store.open(tmp_path)
    try:
        assert store.recovered.word_us == 600_000_000
        (warning,) = store.recovered.warnings
        assert "first ten minutes" in warning
    finally:
        store.close()


@pytest.mark.parametrize("word_us", [1, 600_000_000])
def test_the_same_word_is_not_written_again(tmp_path: Path, word_us: int) -> None:
    given(tmp_path, word_us)
    before = (tmp_path / "word").stat().st_ino
    given(tmp_path, word_us)
    assert (tmp_path / "word").stat().st_ino == before
