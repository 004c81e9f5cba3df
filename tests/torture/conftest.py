"""A pytest that is ended, by Ctrl-C or by whoever cancels it, leaves nothing of torture."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.torture.ending import end_in_order


@pytest.fixture(autouse=True, scope="package")
def _ends_in_order() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    end_in_order(as_interrupted=True)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
