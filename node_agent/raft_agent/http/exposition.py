"""The page of metrics: a reading in the text formats of Prometheus and OpenMetrics."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from raft_agent.histogram import BUCKETS, Histogram
from raft_agent.http.families import GROUPS
from raft_agent.http.family import Family, Kind, Sample
from raft_agent.http.source import Durations, Reading

# Nothing that is measured is faster than 16 µs; the last bucket has no bound.
_FIRST_BUCKET = 4

# What stands in an Accept header comes back in the Content-Type.
_VERSION = re.compile(r"version *= *([^;]*)")
_SOUND_VERSION = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2} *")


class NodeCollector(Collector):
    """Asks for a reading with every scrape."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        reading = self._read()
        for group in GROUPS:
            for family in group.families:
                yield _metric(family, family.read(reading))


class Exposition:
    """`page` gives what /metrics answers. Takes one or two milliseconds."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        # Described by a reading, the registry would ask for one before there is a node to read.
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(NodeCollector(read))
        ProcessCollector(registry=self._registry)

    def page(self, accept: str) -> tuple[bytes, str]:
        """(body, content type) in the format that an Accept header asks for."""
        encode, content_type = choose_encoder(_understood(accept))
        return encode(self._registry), content_type


def _understood(accept: str) -> str:
    """The media ranges of an Accept header, without those whose version is none."""
    ranges = accept.split(",")
    return ",".join(
        item
        for item in ranges
        if all(_SOUND_VERSION.fullmatch(version) for version in _VERSION.findall(item))
    )


def _metric(family: Family, samples: Iterable[Sample]) -> Metric:
    if family.kind is Kind.HISTOGRAM:
        return _histogram_metric(family, samples)
    kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for labels, value in samples:
        if isinstance(value, Histogram | Durations):
            raise TypeError(f"{family.name} is no histogram")
        metric.add_metric(labels, value)
    return metric


def _histogram_metric(family: Family, samples: Iterable[Sample]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in samples:
        if isinstance(value, Durations):
            pairs = [("+Inf" if s == math.inf else repr(s), n) for s, n in value.up_to]
            metric.add_metric(labels, pairs, None)
        elif isinstance(value, Histogram):
            metric.add_metric(labels, _buckets(value), value.sum_us / 1e6)
        else:
            raise TypeError(f"{family.name} is a histogram")
    return metric


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """(upper bound in seconds, how many took at most so long), up to "+Inf"."""
    counts = list(histogram.buckets)
    total = sum(counts[:_FIRST_BUCKET])
    pairs: list[tuple[str, float]] = []
    for place in range(_FIRST_BUCKET, BUCKETS - 1):
        total += counts[place]
        pairs.append((repr((1 << place) / 1e6), total))
    return [*pairs, ("+Inf", total + counts[-1])]
