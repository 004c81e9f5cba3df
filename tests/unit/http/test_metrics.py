"""The page of metrics says what a reading says, under names that keep to Prometheus's rules."""

from __future__ import annotations

import re

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse

from raft_agent.histogram import BUCKETS
from raft_agent.http.exposition import Exposition
from raft_agent.http.families import GROUPS, PROCESS
from raft_agent.http.family import Family, Kind
from tests.unit.http.sources import FakeSource, histogram, peer

FAMILIES = [family for group in GROUPS for family in group.families]

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def page_of(source: FakeSource, accept: str = "") -> str:
    return Exposition(source.reading).page(accept)[0].decode()


def samples(source: FakeSource) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(page_of(source))
        for sample in family.samples
    }


def one(source: FakeSource, name: str, **labels: str) -> float:
    return samples(source)[name, tuple(sorted(labels.items()))]


def test_every_metric_of_the_table_is_on_the_page_and_no_other() -> None:
    source = FakeSource()
    on_page = set(re.findall(r"^# TYPE (\w+) ", page_of(source), re.MULTILINE))
    listed = {family.name for family in (*FAMILIES, *PROCESS.families)}
    assert on_page == listed


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_name_tells_its_kind_and_its_unit(family: Family) -> None:
    # https://prometheus.io/docs/practices/naming/
    assert re.fullmatch(r"raft(_[a-z]+)+", family.name)
    assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert family.kind is not Kind.HISTOGRAM or family.name.endswith("_seconds")
    assert not re.search(r"_(ms|us|milliseconds|kib|mib|kilobytes)(_|$)", family.name)
    assert family.help.endswith(".")


def test_numbers_are_those_of_the_moment_of_the_scrape() -> None:
    source = FakeSource()
    exposition = Exposition(source.reading)
    for index in (42, 43):
        source.index = index
        assert f"raft_commit_index {index}.0\n" in exposition.page("")[0].decode()


def test_a_node_tells_its_role_as_one_of_all() -> None:
    source = FakeSource()
    source.leads = False
    roles = {
        role: one(source, "raft_role", role=role)
        for role in ("leader", "follower", "candidate", "learner")
    }
    assert roles == {"leader": 0, "follower": 1, "candidate": 0, "learner": 0}


def test_readiness_is_what_readyz_says() -> None:
    source = FakeSource()
    assert one(source, "raft_ready") == 1
    source.unready = "no leader is known"
    assert one(source, "raft_ready") == 0


def test_elections_and_proposals_are_told_apart() -> None:
    source = FakeSource()
    assert one(source, "raft_elections_total", phase="pre_vote") == 2
    assert one(source, "raft_proposals_total", outcome="refused") == 1
    assert one(source, "raft_leader_changes_total") == 3
    assert one(source, "raft_transport_rejects_total", reason="identity") == 2


def test_a_histogram_counts_up_to_each_bound_and_adds_up_in_seconds() -> None:
    source = FakeSource()
    source.commits = histogram(900, 1_024, 1_025, 3_000)
    name = "raft_commit_duration_seconds"
    assert one(source, f"{name}_bucket", le="0.000512") == 0
    assert one(source, f"{name}_bucket", le="0.001024") == 2
    assert one(source, f"{name}_bucket", le="0.002048") == 3
    assert one(source, f"{name}_bucket", le="+Inf") == one(source, f"{name}_count") == 4
    assert one(source, f"{name}_sum") == pytest.approx(0.005949)


def test_what_is_longer_than_the_longest_bucket_is_counted_as_endless() -> None:
    source = FakeSource()
    source.commits = histogram(1 << 40)
    found = samples(source)
    bounds = {
        dict(labels)["le"]: value
        for (name, labels), value in found.items()
        if name == "raft_commit_duration_seconds_bucket"
    }
    assert bounds.pop("+Inf") == 1
    assert set(bounds.values()) == {0}
    assert float(max(bounds, key=float)) == 2 ** (BUCKETS - 2) / 1e6


def test_what_is_not_known_of_a_peer_is_left_out() -> None:
    source = FakeSource()
    source.peers = [peer("node-02", match_index=None, lag=None, contact_s=None)]
    names = {name for name, labels in samples(source) if ("peer", "node-02") in labels}
    assert "raft_peer_connected" in names
    assert names.isdisjoint(
        {"raft_peer_match_index", "raft_peer_lag_entries", "raft_peer_last_contact_seconds"}
    )


def test_a_node_that_is_a_voter_counts_among_the_connected_ones() -> None:
    source = FakeSource()
    source.peers = [peer("node-02"), peer("node-03", is_connected=False), peer("a-learner")]
    assert one(source, "raft_connected_voters") == 2


def test_openmetrics_is_spoken_with_who_asks_for_it() -> None:
    accept = "application/openmetrics-text;version=1.0.0"
    source = FakeSource()
    body, content_type = Exposition(source.reading).page(accept)
    assert content_type.startswith("application/openmetrics-text")
    terms = [f for f in parse_openmetrics(body.decode()) if f.name == "raft_term"]
    assert [sample.value for sample in terms[0].samples] == [7]


def test_a_name_of_a_peer_is_escaped() -> None:
    source = FakeSource()
    source.peers = [peer('a"b\\c\nd')]
    labels = [labels for name, labels in samples(source) if name == "raft_peer_connected"]
    assert labels == [(("peer", 'a"b\\c\nd'),)]


# --- exported maps


def test_what_exported_maps_are_like_is_told() -> None:
    source = FakeSource()
    assert one(source, "raft_export_state", state="degraded") == 1
    assert one(source, "raft_export_state", state="ready") == 0
    assert one(source, "raft_export_applied_index") == 41
    assert one(source, "raft_export_fresh_seconds") == 0.25
    assert one(source, "raft_export_entries", map="ports") == 7
    assert one(source, "raft_export_failed", map="ports") == 0
    assert one(source, "raft_export_failed", map="broken") == 1


def test_a_node_that_keeps_no_maps_has_no_metrics_of_them() -> None:
    source = FakeSource()
    source.exports = None
    assert not [name for name, _ in samples(source) if name.startswith("raft_export_")]


# --- the kernel part


def test_what_the_kernel_saw_is_told_by_peer_direction_and_type() -> None:
    source = FakeSource()
    there = {"peer": "node-02", "direction": "received"}
    assert one(source, "raft_kernel_packets_total", **there) == 20
    assert one(source, "raft_kernel_frames_total", type="heartbeat", **there) == 7
    assert one(source, "raft_kernel_dropped_packets_total", **there) == 4
    assert one(source, "raft_kernel_state", state="attached") == 1
    assert one(source, "raft_kernel_state", state="degraded") == 0
    assert one(source, "raft_kernel_connections_total", outcome="dropped") == 1


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_the_kernels_histograms_have_buckets_and_no_sum(accept: str) -> None:
    page = page_of(FakeSource(), accept)
    name = "raft_kernel_loop_lag_seconds"
    assert f'{name}_bucket{{le="4.096e-06",peer="node-02"}} 3.0' in page
    assert f'{name}_bucket{{le="+Inf",peer="node-02"}} 3.0' in page
    assert f"{name}_sum" not in page


def test_without_the_kernel_part_there_is_nothing_of_it() -> None:
    source = FakeSource()
    source.kernel = None
    assert not [name for name, _ in samples(source) if name.startswith("raft_kernel")]
