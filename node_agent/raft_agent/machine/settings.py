"""Settings that all nodes share, because they are changed through the log."""

from __future__ import annotations

import msgspec

# The smallest and the largest value of each, by name.
RANGES = {
    "messages_keep": (1, 10_000_000),
    "history_keep": (0, 10_000_000),
}


class SharedSettings(msgspec.Struct, frozen=True):
    """`messages_keep`: how many of the newest messages are kept. `history_keep`: how many of the
    newest changes of keys are kept for watches that begin in the past.
    """

    messages_keep: int = 100_000
    history_keep: int = 10_000


def problem_with(name: str, value: int) -> str:
    """What is wrong with this value for this setting, and what would be right; "" when it is."""
    limits = RANGES.get(name)
    if limits is None:
        return f'There is no setting "{name[:40]}"; there are: {", ".join(sorted(RANGES))}'
    lowest, highest = limits
    if not lowest <= value <= highest:
        return f"{name} is a number from {lowest} to {highest}, not {value}"
    return ""
