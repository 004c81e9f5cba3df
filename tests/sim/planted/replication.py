"""Faults in replication and commitment, on both sides."""

from __future__ import annotations

from tests.sim.planted.fault import Edit, Fault
from tests.sim.planted.focus import diverging_logs, slow_disks

_APPENDS = "raft_agent.consensus.appends"
_REPLICATION = "raft_agent.consensus.replication"
_STATE = "raft_agent.consensus.state"
_QUORUM = "raft_agent.consensus.quorum"
_APPLYING = "raft_agent.consensus.applying"

FAULTS = (
    Fault(
        "commit_by_an_old_terms_entry",
        "a leader commits by counting replicas of an older term's entry (figure 8)",
        (
            Edit(
                _REPLICATION,
                "if index > state.commit_index and state.log.term_at(index) == state.current_term:",
                "if index > state.commit_index:",
            ),
        ),
        (
            "a leader commits by an entry of an older term",
            "state machine safety",
            "committed, but not on the disks of a majority",
        ),
    ),
    Fault(
        "truncation_by_an_old_append",
        "an AppendEntries whose entries are there already cuts what stands behind them",
        (
            Edit(
                _APPENDS,
                "            if log.holds(batch.last_index, batch.term):\n"
                "                continue\n",
                "",
            ),
        ),
        (
            "a committed entry is cut",
            "a committed entry is never cut",
            "state machine safety",
        ),
        seed=2,
    ),
    Fault(
        "acknowledged_before_fsync",
        "a follower acknowledges entries that are still being written",
        (
            Edit(
                _APPENDS,
                "state.send(sender, reply, after_log=state.write_that_holds(last_new))",
                "state.send(sender, reply)",
            ),
        ),
        ("acknowledged before it was on disk",),
    ),
    Fault(
        "leader_counts_itself_before_fsync",
        "the leader counts its own log before its own disk has it",
        (
            Edit(
                _REPLICATION,
                "match[state.member_id] = state.persisted_index",
                "match[state.member_id] = state.log.last_index",
            ),
        ),
        ("committed, but not on the disks of a majority",),
        seed=1,
    ),
    Fault(
        "match_index_moved_by_a_stale_reply",
        "a reply from an earlier session, before the peer restarted, moves match_index",
        (
            Edit(
                _REPLICATION,
                "if leadership is None or progress is None or message.session != progress.session:"
                "\n            return\n        progress.last_contact_us = state.now_us\n"
                "        if message.success:\n",
                "if leadership is None or progress is None:\n            return\n"
                "        progress.last_contact_us = state.now_us\n        if message.success:\n",
            ),
        ),
        (
            "a match index is beyond what is on the peer's disk",
            "committed, but not on the disks of a majority",
            "no progress after healing",
            "no fresh write after healing",
        ),
        unit_test="test_replication_flow:test_a_reply_from_before_a_reconnect_cannot_move_match_index",
    ),
    Fault(
        "every_success_means_everything",
        "a leader takes any success for its whole log",
        (
            Edit(
                _REPLICATION,
                "progress.acknowledged(message.match_index, state.now_us)",
                "progress.acknowledged(state.log.last_index, state.now_us)",
            ),
        ),
        ("a match index is beyond what is on the peer's disk",),
    ),
    Fault(
        "follower_acknowledges_its_own_end",
        "a follower acknowledges up to the end of its log, not of the request",
        (
            Edit(
                _APPENDS,
                "message.request_id, message.session, True, last_new, 0, 0",
                "message.request_id, message.session, True, state.persisted_index, 0, 0",
            ),
        ),
        (
            "a match index is beyond what is on the peer's disk",
            "acknowledged before it was on disk",
            "no fresh write after healing",
            "no progress after healing",
        ),
        seed=3,
    ),
    Fault(
        "no_look_at_the_entry_before",
        "a follower takes entries whatever stands before them",
        (
            Edit(
                _APPENDS,
                "if not state.log.holds(message.prev_index, message.prev_term):",
                "if message.prev_index > state.log.last_index:",
            ),
        ),
        (
            "log matching",
            "terms that fall",
            "can't follow",
            "beyond what is on the peer's disk",
            "committed entries differ",
            "state machine safety",
            "would split a batch",
        ),
        focus=diverging_logs,
        seed=4,
    ),
    Fault(
        "commit_beyond_the_request",
        "a follower commits up to the leader's commit index, although it has other entries there",
        (
            Edit(
                _APPENDS,
                "self.committed(min(message.commit_index, last_new))",
                "self.committed(min(message.commit_index, state.log.last_index))",
            ),
        ),
        (
            "committed entries differ",
            "state machine safety",
        ),
        unit_test="test_figure2_append_entries:test_commit_index_is_the_minimum_of_leader_commit_and_the_last_new_entry",
    ),
    Fault(
        "heartbeat_commits_beyond_match",
        "heartbeats carry the commit index and not what the follower is known to have of it",
        (
            Edit(
                _REPLICATION,
                "            known = min(state.commit_index, progress.match_index)\n"
                "            progress.commit_sent",
                "            known = state.commit_index\n            progress.commit_sent",
            ),
        ),
        (
            "committed entries differ",
            "state machine safety",
        ),
        focus=diverging_logs,
        seed=4,
    ),
    Fault(
        "commit_quorum_off_by_one",
        "in clusters of even size half of the voters are enough to commit",
        (
            Edit(
                _QUORUM,
                "return ranked[(len(ranked) - 1) // 2]",
                "return ranked[len(ranked) // 2]",
            ),
        ),
        ("committed, but not on the disks of a majority",),
        seed=1,
    ),
    Fault(
        "persisted_survives_a_cut",
        "after a cut the log still counts as written up to where it was",
        (
            Edit(
                _STATE,
                "self.persisted_index = min(self.persisted_index, from_index - 1)",
                "pass",
            ),
        ),
        (
            "what is on disk is in the log",
            "acknowledged before it was on disk",
            "a match index is beyond what is on the peer's disk",
        ),
        seed=3,
    ),
    Fault(
        "old_writes_count_after_a_cut",
        "a write that was under way when the log was cut still counts for its old end",
        (
            Edit(
                _STATE,
                "(seq, min(last_index, from_index - 1)) for seq, last_index in self._pending_log",
                "(seq, last_index) for seq, last_index in self._pending_log",
            ),
        ),
        ("what is on disk is in the log", "acknowledged before it was on disk"),
        focus=slow_disks,
        seed=2,
    ),
    Fault(
        "never_sends_again",
        "what was lost on the way is never sent again",
        (
            Edit(
                _REPLICATION,
                "if progress.is_overdue(state.now_us, settings.election_timeout_max_us):",
                "if False:",
            ),
        ),
        ("no progress after healing", "no fresh write after healing"),
        seed=2,
    ),
    Fault(
        "back_off_stops_at_the_hint",
        "a leader that was refused tries the same place again",
        (
            Edit(
                _REPLICATION,
                "progress.probe(agreed + 1)",
                "progress.probe(progress.next_index)",
            ),
        ),
        ("no progress after healing", "no fresh write after healing"),
    ),
    Fault(
        "refused_after_it_was_appended",
        "a proposal is refused although it stands in the log",
        (
            Edit(
                _REPLICATION,
                "state.effects.append(Proposed(event.tag, first_index, state.current_term))",
                "full = leadership.uncommitted_bytes > state.settings.max_uncommitted_bytes\n"
                "            state.effects.append(\n"
                "                Proposed(event.tag, first_index, state.current_term)\n"
                "            ) if not full else state.refuse(event.tag, RefusalReason.BUSY)",
            ),
        ),
        ("was refused but is at index", "linearizable"),
        seed=40,
    ),
    Fault(
        "hand_over_never_ends",
        "a leader whose hand-over failed goes on refusing proposals",
        (
            Edit(
                "raft_agent.consensus.transfer",
                "if transfer is not None and self._state.now_us >= transfer.deadline_us:",
                "if False:",
            ),
        ),
        ("no fresh write after healing", "no progress after healing"),
        unit_test="test_terms_and_timers:test_a_hand_over_ends_at_its_deadline_and_not_before",
    ),
    Fault(
        "applied_twice",
        "the same batches are handed to the state machine again",
        (
            Edit(
                _APPLYING,
                "        state.applied_index = event.index\n",
                "        state.applied_index = event.index - (event.index % 16 == 0)\n",
            ),
        ),
        ("committed batches are applied without a gap", "state machine safety", "applied"),
    ),
    Fault(
        "applies_what_is_not_committed",
        "batches that were read from disk are applied beyond the commit index",
        (
            Edit(
                _APPLYING,
                "if batch.last_index <= state.commit_index\n            and state.log.holds",
                "if state.log.holds",
            ),
        ),
        (
            "applied before it was committed",
            "applied <= committed <= last",
        ),
        seed=2,
    ),
    Fault(
        "applies_what_was_read_before_a_cut",
        "batches that the log has lost while they were read from disk are applied all the same",
        (
            Edit(
                _APPLYING,
                "            and state.log.holds(batch.last_index, batch.term)\n",
                "",
            ),
        ),
        ("state machine safety", "applied before it was committed"),
        unit_test="test_read_log_cut:test_what_was_read_before_a_cut_is_not_applied_after_it",
    ),
    Fault(
        "check_quorum_left_out",
        "a leader that hears from nobody goes on leading",
        (
            Edit(
                _REPLICATION,
                "if silence_us > settings.election_timeout_max_us:",
                "if False:",
            ),
        ),
        ("quorum",),
        unit_test="test_partitions:test_a_leader_that_can_send_but_not_hear_steps_down_and_another_takes_over",
    ),
)
