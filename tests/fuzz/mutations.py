"""Inputs near valid ones, as hypothesis draws them: the suite's short fuzzing."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzz.target import Target

# Of MessagePack: heads that promise very much; of everything: the edges of a byte.
_TELLING = (0x00, 0x7F, 0x80, 0x90, 0xC1, 0xC6, 0xDB, 0xDD, 0xDF, 0xFF)


@st.composite
def inputs(draw: st.DrawFn, target: Target) -> bytes:
    """A seed with some changes, or random bytes."""
    seeds = list(target.seeds())
    data = draw(st.one_of(st.sampled_from(seeds), st.binary(max_size=200)))
    for _ in range(draw(st.integers(0, 4))):
        data = _changed(draw, data, seeds)
    if target.mend is not None and draw(st.booleans()):
        data = target.mend(data)
    return data[: target.max_bytes]


def _changed(draw: st.DrawFn, data: bytes, seeds: list[bytes]) -> bytes:
    at = draw(st.integers(0, len(data)))
    kind = draw(st.sampled_from(("flip", "set", "insert", "remove", "cut", "splice")))
    if kind == "flip" and at < len(data):
        return data[:at] + bytes((data[at] ^ (1 << draw(st.integers(0, 7))),)) + data[at + 1 :]
    if kind == "set" and at < len(data):
        return data[:at] + bytes((draw(st.sampled_from(_TELLING)),)) + data[at + 1 :]
    if kind == "insert":
        return data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
    if kind == "remove":
        return data[:at] + data[at + draw(st.integers(1, 16)) :]
    if kind == "splice":
        other = draw(st.sampled_from(seeds))
        start = draw(st.integers(0, len(other)))
        return data[:at] + other[start : start + 40] + data[at:]
    return data[:at]
