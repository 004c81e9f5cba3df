"""What a metric is: its name, what it means, and where in a reading its value comes from."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import msgspec

from raft_agent.histogram import Histogram
from raft_agent.http.source import Durations, PeerReading, Reading

Value: TypeAlias = float | Histogram | Durations
Sample: TypeAlias = tuple[tuple[str, ...], Value]
"""The values of the labels, and the sample's."""


class Kind(enum.StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Family(msgspec.Struct, frozen=True):
    """One metric. A counter's `name` ends in _total, as it does on the page."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    read: Callable[[Reading], Iterable[Sample]]


class Group(msgspec.Struct, frozen=True):
    title: str
    families: tuple[Family, ...]


def one(
    kind: Kind, name: str, text: str, value: Callable[[Reading], Value | bool | None]
) -> Family:
    """A metric without labels; None: left out."""

    def read(reading: Reading) -> Iterable[Sample]:
        found = value(reading)
        return [] if found is None else [((), found)]

    return Family(name, kind, text, (), read)


def by(
    kind: Kind,
    name: str,
    label: str,
    text: str,
    values: Callable[[Reading], Mapping[str, float]],
) -> Family:
    """A metric with one label."""

    def read(reading: Reading) -> Iterable[Sample]:
        return [((key,), value) for key, value in values(reading).items()]

    return Family(name, kind, text, (label,), read)


def of_peers(
    kind: Kind, name: str, text: str, value: Callable[[PeerReading], Value | bool | None]
) -> Family:
    """A metric of each other member."""

    def read(reading: Reading) -> Iterable[Sample]:
        found = ((peer.name, value(peer)) for peer in reading.peers)
        return [((peer,), number) for peer, number in found if number is not None]

    return Family(name, kind, text, ("peer",), read)
