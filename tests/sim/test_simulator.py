"""A fixed set of seeds, and whether the simulator does what it says.

`python -m tests.sim.run --seeds A:B` runs any others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from raft_agent.consensus.types import Send
from tests.sim import run
from tests.sim.options import EXPORT_FAULTS, FAULTS, options_for
from tests.sim.process import Process
from tests.sim.run import Outcome, replay_command, run_seed

SEEDS = range(300)
ROOT = Path(__file__).parents[2]

# What must have happened somewhere in the set, or its checks had nothing to look at.
HAPPENS = (
    *(f"fault_{fault}" for fault in FAULTS),
    # elections
    "election_started",
    "leader_elected",
    "leader_lost",
    "quorum_lost",
    "stepped_down",
    "PreVoteReply_refused",
    "VoteReply_refused",
    "election_deferred",
    "transfer_done",
    "transfer_failed",
    # replication
    "append_refused",
    "log_cut",
    "proposal_overwritten",
    "read_log_to_apply",
    "read_log_to_send",
    "refused_busy",
    "refused_storage_failed",
    "write_forwarded",
    # members
    "membership_changed",
    "learner_promoted",
    "address_moved",
    "removed",
    "change_join",
    "change_learn",
    "change_replace",
    "change_promote",
    "change_remove",
    "change_remove_leader",
    "change_mixed",
    "change_move",
    "change_recycle",
    "change_refused_change_pending",
    "change_refused_configuration_moved",
    "change_refused_leadership_lost",
    "change_refused_no_voter_left",
    "change_refused_not_ready",
    "change_refused_transferring",
    "change_refused_would_lose_quorum",
    # snapshots
    "snapshot_taken",
    "snapshot_installed",
    "snapshot_sent",
    "snapshot_failed",
    "log_compacted",
    "cluster_joined",
    "crash_before_log_was_forgotten",
    "damaged_snapshot_found",
    "unsynced_snapshot_survived",
    # states
    "fault_flip_state",
    "state_agrees",
    "state_differs",
    "state_disputed",
    "rebuilt",
    # reads and writes
    "read_by_lease",
    "write_sent_again",
    "write_repeated",
    "write_SessionExpired",
    "write_TooLate",
    # transactions and leases
    "txn_then",
    "txn_else",
    "lease_kept",
    "lease_ended",
    "leased_key_ended",
    "lease_end_was_too_late",
    # exported maps
    *(f"fault_{fault}" for fault in EXPORT_FAULTS),
    "exported",
    "export_behind",
    "export_degraded",
    "export_mended",
    "export_BadValue",
    "export_LimitReached",
    "killed_while_it_exports",
    # disks
    "unsynced_write_lost",
    "unsynced_cut_lost",
    "unsynced_vote_lost",
    "torn_tail",
    "torn_with_holes",
    "damaged_tail",
    "damaged_tail_refilled",
    "fsync_failed",
    "disk_full",
    "storage_failed",
    # network
    "message_lost",
    "message_duplicated",
    "message_reordered",
    "message_blocked",
    "message_clogged",
    "message_died_with_connection",
    "message_to_nobody",
    "client_timed_out",
    # processes
    "crash_mid_step",
    "crash_before_AppendLog",
    "crash_before_Apply",
    "crash_before_Proposed",
    "crash_before_SaveVote",
    "crash_before_Send",
    # first start
    "cluster_founded",
    "cluster_adopted",
    "bootstrap_waits",
    "crash_in_first_start",
    "fault_crash_all_in_first_start",
    "fault_crash_mid_step_in_first_start",
    "fault_wipe_in_first_start",
    "fault_damage_in_first_start",
)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [run_seed(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def seen(outcomes: list[Outcome]) -> Counter[str]:
    """How often what happened, over the whole set."""
    total: Counter[str] = Counter()
    for outcome in outcomes:
        total.update(outcome.seen)
    return total


def test_no_schedule_breaks_a_rule(outcomes: list[Outcome]) -> None:
    failed = [
        f"{outcome.failure}\nreplay: {replay_command(outcome.seed)} --trace"
        for outcome in outcomes
        if outcome.failure
    ]
    assert not failed, "\n\n".join(failed)


def test_every_schedule_is_long_enough_to_mean_something(outcomes: list[Outcome]) -> None:
    assert min(outcome.events for outcome in outcomes) >= 2000


@pytest.mark.parametrize("what", HAPPENS)
def test_the_set_is_not_vacuous(seen: Counter[str], what: str) -> None:
    assert seen[what] > 0


def test_every_cluster_size_is_in_the_set() -> None:
    assert {options_for(seed).nodes for seed in SEEDS} == {1, 2, 3, 4, 5, 6, 7}


def test_a_seed_replays_exactly() -> None:
    for seed in (3, 4, 5):
        first, second = run_seed(seed), run_seed(seed)
        assert (first.trace_hash, first.events, first.seen) == (
            second.trace_hash,
            second.events,
            second.seen,
        )


def _trace(seed: int, hash_seed: str) -> str:
    command = [sys.executable, "-m", "tests.sim.run", "--seed", str(seed), "--trace"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_seed_gives_the_same_trace_in_every_interpreter() -> None:
    """Nothing may depend on the order of a set of strings, an address or a clock."""
    first = _trace(7, "1")
    assert first.count("\n") > 2000
    assert _trace(7, "2") == first


def test_different_seeds_are_different_schedules(outcomes: list[Outcome]) -> None:
    assert len({outcome.trace_hash for outcome in outcomes}) == len(SEEDS)


def _send_at_once(self: Process, send: Send) -> None:
    self._depart(send, 0)


def test_a_host_that_does_not_wait_for_the_disk_is_caught_and_told_how_to_replay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Process, "_send", _send_at_once)
    monkeypatch.setattr(sys, "argv", ["run", "--seed", "0"])
    assert run.main() == 1
    printed = capsys.readouterr().err
    assert "is not on disk" in printed or "before it was on disk" in printed
    assert "replay: .venv/bin/python -m tests.sim.run --seed 0 --trace" in printed


def test_runs_of_many_seeds_say_how_fast_they_were(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run", "--seeds", "0:2"])
    assert run.main() == 0
    printed = capsys.readouterr().out
    assert "2 schedules" in printed
    assert "schedules/h" in printed
    assert "events/s" in printed
