"""Numbers and switches on the command line: each has bounds, and says them in plain words."""

from __future__ import annotations

from typing import Any

import click

# Far more than there can be, and small enough for whatever a number is handed to.
MAX_COUNT = 1_000_000_000
MAX_REVISION = (1 << 63) - 1
MAX_SECONDS = 1_000_000.0
# As the state machine has it (machine/leases.py).
MIN_LEASE_SECONDS = 1.0
MAX_LEASE_SECONDS = 31_536_000.0
MAX_INTERVAL_MS = 86_400_000


class Whole(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no type argument
    """A whole number from `low` to `high`."""

    name = "number"

    def __init__(self, low: int = 1, high: int = MAX_COUNT) -> None:
        self.low = low
        self.high = high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a whole number", param, ctx)
        if not self.low <= number <= self.high:
            self.fail(f"{value} is not a number from {self.low} to {self.high}", param, ctx)
        return number


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """A time in seconds from `low` to `high`; 0 only when `zero` is allowed."""

    name = "seconds"

    def __init__(self, *, zero: bool = False, low: float = 0, high: float = MAX_SECONDS) -> None:
        self.zero = zero
        self.low = low
        self.high = high

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            seconds = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        if not self.low <= seconds <= self.high or not (seconds or self.zero):
            low = f"from {self.low:g} to"
            span = low if self.zero or self.low else "greater than 0 and at most"
            self.fail(f"{value}: must be {span} {self.high:.0f} seconds", param, ctx)
        return seconds


class LeaseSeconds(Seconds):
    """How long a lease may last."""

    def __init__(self) -> None:
        super().__init__(low=MIN_LEASE_SECONDS, high=MAX_LEASE_SECONDS)


class Switch(click.types.BoolParamType):
    """A flag, which the environment may also set to a word."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is neither true nor false", param, ctx)
