"""SIGKILL leaves the page cache alive, so kills show no missing fsync; system calls do."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from raft_agent.consensus import types
from tests.e2e.agents import local_cluster
from tests.e2e.load import Load
from tests.e2e.syscalls import STRACE, Durable, calls, messages_sent


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_acknowledgement_leaves_before_its_fdatasync() -> None:
    traces = Path(tempfile.mkdtemp(prefix="raft-strace-"))
    try:
        with local_cluster(
            wrapper=lambda name: (*STRACE, "-o", str(traces / name)),
            # Traced processes are slow, and an election in between would only blur the picture.
            extra="[timing]\nelection_timeout_min_ms = 2000\nelection_timeout_max_ms = 4000",
        ) as cluster:
            names = list(cluster.agents)
            load = Load(str(cluster.leader().socket_path), 16, "traced")
            load.run_until(400, lambda: None)
            for agent in cluster:
                agent.stop()
        traced = {name: calls(traces / name) for name in names}
    finally:
        shutil.rmtree(traces)
    durable = {name: Durable(traced[name]) for name in names}
    checked = 0
    for name in names:
        for sent_s, message in messages_sent(traced[name]):
            if isinstance(message, types.AppendReply) and message.success:
                on_disk = durable[name].index_at(sent_s)
                assert message.match_index <= on_disk, f"{name} acknowledged what was not on disk"
                checked += 1
    assert checked > 20, "the trace holds no acknowledgements: the test looks at the wrong calls"
    for ack in load.acks:
        holders = [name for name in names if durable[name].index_at(ack.at_s) >= ack.index]
        assert len(holders) >= 2, f"{ack.key} was acknowledged while only {holders} had it on disk"
    assert len(load.acks) >= 400
