"""All that a history is held to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.torture.checks import growth, keys, leases, streams
from tests.torture.history import Record

CHECKS: dict[str, Callable[[Sequence[Record]], list[str]]] = {
    "registers are linearizable": keys.check_registers,
    "transactions are linearizable": keys.check_transactions,
    "stale reads are as old as they say": keys.check_stale_reads,
    "sets keep their elements": growth.check_sets,
    "lists keep their elements": growth.check_lists,
    "counters count once": growth.check_counters,
    "writes are applied once": growth.check_once,
    "messages are there once and in order": streams.check_messages,
    "watches tell everything in order": streams.check_watches,
    "the end holds what all changes come to": streams.check_end,
    "leases live as promised": leases.check_leases,
    "locks have one holder": leases.check_locks,
}
_SHOWN = 5


def check_all(records: Sequence[Record]) -> dict[str, list[str]]:
    """What each check complains of, with the first complaints; nothing when all is well."""
    found = {name: check(records) for name, check in CHECKS.items()}
    return {name: complaints[:_SHOWN] for name, complaints in found.items() if complaints}
