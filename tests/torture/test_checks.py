"""Each check lets a right history pass and complains of a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.torture.alarms import alarms
from tests.torture.checks import growth, keys, leases, streams
from tests.torture.contents import Contents, differences
from tests.torture.history import Record
from tests.torture.strikes.processes import ENOUGH_MEMORY, LITTLE_MEMORY

SECOND = 1_000_000_000
LEADS = "node-01 t3 leader: leads from now on"
Check = Callable[[Sequence[Record]], list[str]]


class Book:
    """A history in the making; each operation takes a tick, one after the other."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.now = 0

    def add(
        self, kind: str, op: str, *, outcome: Any = "ok", lasts: int = 10, **facts: Any
    ) -> Book:
        self.now += 1
        called, self.now = self.now, self.now + lasts
        client = facts.pop("client", 1)
        self.records.append(Record(client, kind, op, called, self.now, outcome, **facts))
        return self

    def end(self, found: Sequence[tuple[str, str, int, int]], revision: int = 1) -> Book:
        out = [list(item) for item in found]
        return self.add("end", "keys", out=out, args=[revision], revision=revision)


def put(book: Book, value: str, revision: int, **facts: Any) -> Book:
    return book.add("register", "put", key="r", args=[value], revision=revision, **facts)


def get(book: Book, value: str | None, revision: int | None, op: str = "get_lease") -> Book:
    return book.add("register", op, key="r", out=[value, revision, None])


def test_a_register_that_is_read_as_it_was_written_is_linearizable() -> None:
    book = put(put(Book(), "a", 1), "b", 2, outcome="unknown")
    assert keys.check_registers(get(get(book, "a", 1), "b", 2).records) == []


@pytest.mark.parametrize("op", ["get_lease", "get_linearizable"])
def test_an_old_read_is_found(op: str) -> None:
    assert keys.check_registers(get(put(put(Book(), "a", 1), "b", 2), "a", 1, op).records)


def test_a_write_that_is_lost_in_the_end_is_found() -> None:
    assert keys.check_registers(put(Book(), "a", 1).end([]).records)
    assert keys.check_registers(put(Book(), "a", 1).end([("r", "a", 1, 1)]).records) == []


def test_a_refused_write_that_is_seen_is_found() -> None:
    assert keys.check_registers(get(put(Book(), "a", 0, outcome="no"), "a", 1).records)


def test_a_conflict_where_the_value_was_the_expected_one_is_found() -> None:
    book = put(Book(), "a", 1)
    book.add("register", "cas", key="r", args=["a", "b"], outcome="no", code="conflict")
    assert keys.check_registers(book.records)


def transaction(book: Book, compares: list[Any], then: list[Any], results: list[Any]) -> Book:
    args = [compares, then, [["get", 0]]]
    return book.add("txn", "txn", key="t", args=args, out=[True, results], revision=book.now)


def test_a_transaction_that_succeeds_on_what_is_not_there_is_found() -> None:
    book = transaction(Book(), [], [["put", 0, "a", 0], ["put", 1, "b", 0]], [None, None])
    assert keys.check_transactions(book.records) == []
    transaction(book, [[0, "x"]], [["put", 0, "c", 0]], [None])
    assert keys.check_transactions(book.records)


def test_half_a_transaction_is_found() -> None:
    book = transaction(Book(), [], [["put", 0, "a", 0], ["put", 1, "b", 0]], [None, None])
    assert keys.check_transactions(book.end([("t/0", "a", 1, 1)]).records)


def test_a_stale_read_that_is_older_than_it_says_is_found() -> None:
    book = put(put(Book(), "a", 1), "b", 2)
    book.now += 10 * SECOND
    book.add("register", "get_stale", key="r", out=["a", 1, 20_000])
    assert keys.check_stale_reads(book.records) == []
    book.add("register", "get_stale", key="r", out=["a", 1, 1_000])
    assert keys.check_stale_reads(book.records)


def test_a_stale_read_of_nothing_is_held_to_its_age() -> None:
    def history(*, deleted: bool) -> list[Record]:
        book = put(Book(), "a", 1)
        if deleted:
            book.add("register", "delete", key="r", out=True, revision=2)
        book.now += 10 * SECOND
        return book.add("register", "get_stale", key="r", out=[None, 0, 1_000]).records

    assert keys.check_stale_reads(history(deleted=True)) == []
    assert keys.check_stale_reads(history(deleted=False))


def add(book: Book, element: str, **facts: Any) -> Book:
    return book.add("set", "add", key="s/", args=[element], **facts)


@pytest.mark.parametrize("rest", [["a"], []])
def test_a_set_that_loses_elements_is_found(rest: list[str]) -> None:
    book = add(add(Book(), "a"), "b", outcome="unknown")
    assert growth.check_sets(book.add("set", "list", key="s/", out=["a", "b"]).records) == []
    assert growth.check_sets(book.add("set", "list", key="s/", out=rest).records)


def test_an_element_that_is_there_before_it_is_added_is_found() -> None:
    assert growth.check_sets(add(Book(), "a", outcome="no", code="conflict").records)


def test_a_list_with_an_element_twice_or_missing_is_found() -> None:
    book = Book().add("list", "append", key="a", args=["x"])
    assert growth.check_lists([*book.records, *Book().end([("a", "x", 1, 1)]).records]) == []
    assert growth.check_lists([*book.records, *Book().end([("a", "x,x", 1, 1)]).records])
    assert growth.check_lists([*book.records, *Book().end([("a", "y", 1, 1)]).records])
    assert growth.check_lists([*book.records, *Book().end([]).records])


def test_a_list_whose_past_changes_is_found() -> None:
    book = Book().add("list", "get", key="a", out=["x", "y"])
    assert growth.check_lists(book.add("list", "get", key="a", out=["y", "x", "z"]).records)


def test_a_counter_that_counts_twice_or_not_at_all_is_found() -> None:
    book = Book().add("counter", "add_one", key="c", args=[0], out=True)
    for value, right in (("1", True), ("2", False), ("0", False)):
        found = [*book.records, *Book().end([("c", value, 1, 1)]).records]
        assert (growth.check_counters(found) == []) is right
    book.add("counter", "add_one", key="c", args=[0], out=True)
    assert growth.check_counters(book.records)


def test_a_put_that_is_applied_twice_or_never_is_found() -> None:
    for version, right in ((1, True), (2, False), (0, False)):
        book = Book().add("once", "put", key="o", args=["a"])
        book.add("once", "version", key="o", out=[version, "a"])
        assert (growth.check_once(book.records) == []) is right


def test_what_is_read_behind_a_refused_put_is_what_was_put_before() -> None:
    for value, right in (("a", True), ("c", False)):
        book = Book().add("once", "put", key="o", args=["a"])
        book.add("once", "put", key="o", args=["b"], outcome="no")
        book.add("once", "version", key="o", out=[1, value])
        assert (growth.check_once(book.records) == []) is right


def send(book: Book, text: str, index: int, **facts: Any) -> Book:
    return book.add("message", "send", args=[text], index=index, **facts)


@pytest.mark.parametrize(
    ("log", "right"),
    [
        ([[1, "a"], [2, "b"]], True),
        ([[1, "a"], [2, "b"], [3, "b"]], False),
        ([[1, "a"]], False),
        ([[1, "b"], [2, "a"]], False),
        ([[1, "a"], [2, "b"], [3, "refused"]], False),
    ],
)
def test_the_message_log_holds_what_was_promised(log: list[Any], right: bool) -> None:
    book = send(send(Book(), "a", 1), "b", 2)
    send(book, "refused", 0, outcome="no").add("end", "messages", out=log)
    assert (streams.check_messages(book.records) == []) is right


@pytest.mark.parametrize(
    ("told", "right"),
    [([1, 2, 3], True), ([1, 3], False), ([1, 2], False), ([1, 2, 2, 3], False)],
    ids=["all", "gap", "not the last", "twice"],
)
def test_a_watch_of_messages_is_told_each_once_and_to_the_end(told: list[int], right: bool) -> None:
    book = Book()
    for index in told:
        book.add("message_watch", "message", index=index, out=f"m{index}")
    log = [[1, "m1"], [2, "m2"], [3, "m3"]]
    book.add("end", "messages", out=log)
    assert (streams.check_messages(book.records) == []) is right


def watch(book: Book, name: str, *events: tuple[int, str, str, bool], start: int = 1) -> Book:
    book.add("key_watch", "begin", out=name, args=[start], revision=start)
    for revision, key, value, more in events:
        args = ["put", value, more]
        book.add("key_watch", "event", out=name, key=key, args=args, revision=revision)
    return book


def bookmark(book: Book, name: str, revision: int) -> Book:
    args = ["bookmark", "", False]
    return book.add("key_watch", "event", out=name, args=args, revision=revision)


def test_watches_that_tell_everything_in_order_are_right() -> None:
    events = [(1, "k", "a", False), (2, "k", "b", True), (2, "l", "c", False)]
    book = put(watch(watch(Book(), "w1", *events), "w2", *events), "z", 9)
    assert streams.check_watches(book.records) == []


@pytest.mark.parametrize(
    "events",
    [
        [(2, "k", "b", False)],
        [(2, "k", "b", False), (1, "k", "a", False)],
        [(1, "k", "a", False), (1, "k", "a", False), (2, "k", "b", False)],
        [(1, "k", "x", False), (2, "k", "b", False)],
    ],
    ids=["gap", "order", "twice", "other value"],
)
def test_a_watch_that_differs_is_found(events: list[Any]) -> None:
    right = [(1, "k", "a", False), (2, "k", "b", False)]
    assert streams.check_watches(watch(watch(Book(), "w1", *right), "w2", *events).records)


def test_a_gap_that_all_watches_share_is_found() -> None:
    told = [(1, "k", "a", False), (3, "k", "c", False)]
    assert streams.check_watches(watch(watch(Book(), "w1", *told), "w2", *told).records)


def test_a_bookmark_says_that_all_before_it_was_told() -> None:
    events = [(1, "k", "a", False), (2, "k", "b", False)]
    assert streams.check_watches(bookmark(watch(Book(), "w", *events), "w", 2).records) == []
    assert streams.check_watches(bookmark(watch(Book(), "w", *events), "w", 3).records)
    assert streams.check_watches(bookmark(watch(Book(), "w", *events), "w", 1).records)


def test_a_watch_that_is_not_told_the_end_is_found() -> None:
    book = watch(Book(), "w", (1, "k", "a", False))
    for last, right in ((1, True), (2, False)):
        records = [*book.records, *Book().end([], last).records]
        assert (streams.check_watches(records) == []) is right


def test_a_watch_from_now_on_is_told_all_that_is_written_later() -> None:
    for first, right in ((3, True), (4, False)):
        book = watch(Book(), "all", *[(r, "r", f"v{r}", False) for r in (1, 2, 3, 4)])
        book.add("key_watch", "begin", out="new", args=[0])
        put(put(book, "v3", 3, index=13), "v4", 4, index=14)
        for revision in range(first, 5):
            args = ["put", f"v{revision}", False]
            book.add("key_watch", "event", out="new", key="r", args=args, revision=revision)
        assert (streams.check_watches(book.records) == []) is right


@pytest.mark.parametrize(("start", "right"), [(5, True), (15_000, False)])
def test_a_watch_that_is_refused_what_is_kept_is_found(start: int, right: bool) -> None:
    book = put(Book(), "a", 20_000).add("key_watch", "compacted", args=[start], revision=19_000)
    assert (streams.check_watches(book.records) == []) is right


@pytest.mark.parametrize(
    ("end", "right"),
    [
        ([("k", "b", 2, 2), ("l", "c", 3, 1)], True),
        ([("k", "b", 2, 2)], False),
        ([("k", "a", 1, 1), ("l", "c", 3, 1)], False),
        ([("k", "b", 2, 2), ("l", "c", 3, 1), ("m", "d", 3, 1)], False),
    ],
    ids=["the same", "one is gone", "an old value", "one more"],
)
def test_the_end_is_what_all_changes_come_to(end: list[Any], right: bool) -> None:
    book = watch(Book(), "w", (1, "k", "a", False), (2, "k", "b", False), (3, "l", "c", False))
    assert (streams.check_end(book.end(end, 3).records) == []) is right


def test_an_end_that_no_watch_was_told_is_no_proof() -> None:
    assert streams.check_end(watch(Book(), "w", (1, "k", "a", False)).end([], 2).records)


@pytest.mark.parametrize(
    ("kind", "op", "facts"),
    [
        ("list", "append", {"key": "k", "args": ["y"]}),
        ("counter", "add_one", {"key": "k", "args": [7], "out": True}),
        ("lock", "fenced", {"key": "k", "args": [3], "out": True}),
        ("lease", "put_leased", {"key": "k", "args": [1]}),
        ("export", "delete", {"key": "k", "out": True}),
        ("set", "add", {"key": "k/", "args": ["e"]}),
        ("txn", "txn", {"key": "k", "args": [[], [["put", 0, "v", 0]], []], "out": [True, []]}),
    ],
)
def test_what_any_write_did_at_a_revision_is_what_watches_were_told(
    kind: str, op: str, facts: dict[str, Any]
) -> None:
    book = watch(Book(), "w", (1, "k", "something else", False))
    assert streams.check_watches(book.add(kind, op, revision=1, **facts).records)


def test_a_write_that_watches_were_not_told_is_found() -> None:
    book = watch(Book(), "w", (1, "k", "a", False), (3, "k", "b", False))
    assert streams.check_watches(put(book, "c", 2).records)


def test_a_lease_that_ends_before_its_time_is_found() -> None:
    for later_s, right in ((1, False), (2, True)):
        book = Book().add("lease", "grant", out=7)
        book.now += later_s * SECOND
        book.add("lease", "keep", key="e/7", args=[7], outcome="no", code="lease_not_found")
        assert (leases.check_leases(book.records) == []) is right


def test_a_key_that_ends_before_its_lease_is_found() -> None:
    for later_s, right in ((1, False), (2, True)):
        book = Book().add("lease", "grant", out=7)
        book.add("lease", "put_leased", key="e/7", args=[7])
        book.now += later_s * SECOND
        book.add("lease", "see", key="e/7", out=False)
        assert (leases.check_leases(book.records) == []) is right


def test_a_key_that_stays_behind_its_lease_is_found() -> None:
    for later_s, right in ((10, True), (60, False)):
        book = Book().add("lease", "grant", out=7)
        book.now += later_s * SECOND
        assert (leases.check_leases(book.end([("e/7", "x", 1, 1)]).records) == []) is right


@pytest.mark.parametrize(
    ("later", "token", "right"),
    [(-50, 2, False), (1000, 2, True), (1000, 1, False)],
    ids=["at once", "one after the other", "an older token"],
)
def test_a_lock_has_one_holder_at_a_time(later: int, token: int, right: bool) -> None:
    book = Book().add("lock", "held", key="l", args=[1], lasts=100)
    book.now += later
    book.add("lock", "held", key="l", args=[token])
    assert (leases.check_locks(book.records) == []) is right


def test_a_write_with_an_old_token_is_found() -> None:
    book = Book().add("lock", "fenced", key="l", args=[2], out=True, revision=5)
    book.add("lock", "fenced", key="l", args=[1], out=True, revision=6)
    assert leases.check_locks(book.records)


def test_a_late_write_with_an_old_token_of_which_only_watches_know_is_found() -> None:
    for tokens, right in (("12", True), ("21", False)):
        events = [(r, "f/l", token, False) for r, token in enumerate(tokens, 1)]
        assert (leases.check_locks(watch(Book(), "w", *events).records) == []) is right


KEYS = {"k": (b"v", 7, 2), "e/1": (b"x", 8, 1)}


@pytest.mark.parametrize(
    ("others", "wanted", "right"),
    [
        ((9, KEYS), {"k": ("v", 7, 2)}, True),
        ((9, KEYS), None, True),
        (None, None, False),
        ((8, KEYS), None, False),
        ((9, {"k": (b"w", 7, 2)}), None, False),
        ((9, {}), None, False),
        ((9, KEYS), {"k": ("v", 7, 3)}, False),
        ((9, KEYS), {}, False),
    ],
    ids=[
        "the same, but for a lease's key",
        "clients read nothing",
        "one says nothing",
        "one is behind",
        "another value",
        "a key is gone",
        "another version than clients read",
        "a key that clients did not find",
    ],
)
def test_all_members_hold_what_clients_read_last(
    others: tuple[int, Contents] | None, wanted: dict[str, tuple[str, int, int]] | None, right: bool
) -> None:
    assert (differences({"node-01": (9, KEYS), "node-02": others}, wanted) == []) is right


@pytest.mark.parametrize(
    ("lines", "right"),
    [
        ([LEADS], True),
        ([LEADS, "node-01 t4 follower: Traceback"], False),
        ([LEADS, "node-02 t3 leader: leads from now on"], False),
        (["node-01 t3 leader: its state differs from the other members' after index 7"], False),
        ([], False),
        (
            [
                LITTLE_MEMORY,
                "node-01: Traceback",
                ENOUGH_MEMORY,
                LEADS,
            ],
            True,
        ),
        (
            [
                LITTLE_MEMORY,
                ENOUGH_MEMORY,
                "node-01: Traceback",
                LEADS,
            ],
            False,
        ),
    ],
    ids=[
        "well",
        "a traceback",
        "two leaders",
        "another state",
        "nothing at all",
        "while memory is taken",
        "after memory was taken",
    ],
)
def test_logs_tell_of_what_must_never_be(tmp_path: Path, lines: list[str], right: bool) -> None:
    (tmp_path / "node-01").mkdir()
    text = "".join(f"2026-01-01T00:00:00.000Z INFO raft.runtime {line}\n" for line in lines)
    (tmp_path / "node-01" / "agent.log").write_text(text)
    assert (alarms(tmp_path) == []) is right
