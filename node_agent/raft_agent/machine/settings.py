"""Settings that all nodes share, because they are changed through the log."""

from __future__ import annotations

import msgspec


class Setting(msgspec.Struct, frozen=True):
    """`lowest` and `highest` are the smallest and the largest value that it can have."""

    default: int
    lowest: int
    highest: int
    meaning: str


SETTINGS = {
    "messages_keep": Setting(100_000, 1, 10_000_000, "how many of the newest messages are kept"),
    "history_keep": Setting(
        10_000,
        0,
        10_000_000,
        "how many of the newest changes of keys are kept at least, for watches from a revision on",
    ),
}


class SharedSettings(msgspec.Struct, frozen=True):
    """The values, by the names in SETTINGS."""

    messages_keep: int = SETTINGS["messages_keep"].default
    history_keep: int = SETTINGS["history_keep"].default


def problem_with(name: str, value: int) -> str:
    """What is wrong with this value for this setting, and what would be right; "" when it is."""
    setting = SETTINGS.get(name)
    if setting is None:
        return f'There is no setting "{name[:40]}"; there are: {", ".join(sorted(SETTINGS))}'
    if not setting.lowest <= value <= setting.highest:
        return f"{name} is a number from {setting.lowest} to {setting.highest}, not {value}"
    return ""
