"""The ordered set of keys, against a sorted list."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_agent.machine import index
from raft_agent.machine.index import KeyIndex


def check(keys: KeyIndex, model: set[str], places: list[str]) -> None:
    ordered = sorted(model)
    assert list(keys.at_or_after("")) == ordered
    for place in places:
        assert list(keys.after(place)) == [key for key in ordered if key > place]
        assert list(keys.at_or_after(place)) == [key for key in ordered if key >= place]


@given(st.lists(st.text("abc\U0010ffff\u00e9", max_size=4)), st.lists(st.text("abc", max_size=3)))
def test_keys_come_in_the_byte_order_of_utf_8(words: list[str], places: list[str]) -> None:
    keys = KeyIndex(set(words))
    check(keys, set(words), places + words)
    assert list(keys.at_or_after("")) == sorted(set(words), key=str.encode)


@settings(max_examples=40)
@given(st.randoms(use_true_random=False), st.integers(1, 60))
def test_adding_and_removing_in_any_order_keeps_the_order(
    rng: random.Random, distinct: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "BUCKET_KEYS", 4)  # so that few keys fill, split and empty buckets
        keys, model = KeyIndex(), set[str]()
        for _ in range(200):
            key = f"{rng.randrange(distinct):03}"
            if key in model:
                model.remove(key)
                keys.remove(key)
            else:
                model.add(key)
                keys.add(key)
        check(keys, model, ["", "010", "0105", "999"])


def test_an_index_built_at_once_goes_on_like_one_built_key_by_key() -> None:
    names = [f"k{number:05}" for number in range(5000)]
    built = KeyIndex(names[::2])
    for name in names[1::2]:
        built.add(name)
    for name in names[:4000:3]:
        built.remove(name)
    check(built, set(names) - set(names[:4000:3]), ["k00000", "k02500", "k09999"])


def test_a_listing_reads_no_more_than_it_returns() -> None:
    keys = KeyIndex(f"k{number:06}" for number in range(100_000))
    walk = keys.after("k050000")
    assert list(islice(walk, 2)) == ["k050001", "k050002"]
