"""Faults in what stands around the core: the host, its disk, and the recovery at start."""

from __future__ import annotations

from tests.sim.planted.fault import Edit, Fault
from tests.sim.planted.focus import damaged_logs, diverging_logs

_PROCESS = "tests.sim.process"
_DISK = "tests.sim.disk"
_SERVICE = "tests.sim.service"
_PLAN = "raft_agent.storage.plan"
_SCAN = "raft_agent.storage.scan"

FAULTS = (
    Fault(
        "damaged_end_cut_as_if_torn",
        "recovery cuts a damaged last batch without a word to the votes",
        (
            Edit(
                _PLAN,
                "plan.vote = Vote(plan.vote.term, plan.vote.voted_for, *floor)",
                "pass",
            ),
        ),
        ("leader completeness", "an entry is cut", "two different entries"),
        focus=damaged_logs,
        seed=1,
    ),
    Fault(
        "checksum_not_looked_at",
        "recovery takes a batch whose payload does not match its checksum",
        (Edit(_SCAN, "            or crc32c(data[body:tail]) != crc\n", ""),),
        ("log matching", "state machine safety", "have other logs", "Decode", "Error"),
        seed=15,
    ),
    Fault(
        "host_sends_before_fsync",
        "the host sends messages without waiting for what they depend on",
        (
            Edit(
                _PROCESS,
                "            self._held.append((send, disk.cuts))\n",
                "            self._depart(send, 0)\n",
            ),
        ),
        (
            "acknowledged before it was on disk",
            "a vote left before it was on disk",
            "a message of a term that is not on disk",
            "installs a first entry that is not on disk",
        ),
    ),
    Fault(
        "failed_fsync_passed_over",
        "a failed fsync is taken for one that worked",
        (
            Edit(
                _DISK,
                "        if self.fsync_fails:\n"
                '            self._fail("fsync: input/output error")\n'
                "            return\n"
                "        group, self._group = self._group, []\n"
                "        for write in group:\n"
                "            self.durable.write(write.truncate_from, write.batches)\n",
                "        group, self._group = self._group, []\n"
                "        for write in () if self.fsync_fails else group:\n"
                "            self.durable.write(write.truncate_from, write.batches)\n",
            ),
        ),
        ("acknowledged before it was on disk", "not on the disks of a majority", "not on disk"),
        seed=2,
    ),
    Fault(
        "vote_file_not_synced",
        "the disk says that a vote is there which it has not written",
        (
            Edit(
                _DISK,
                "self.synced_vote_seq, self.vote = group[-1]",
                "self.synced_vote_seq = group[-1][0]",
            ),
        ),
        ("a vote left before it was on disk", "a message of a term that is not on disk"),
    ),
    Fault(
        "read_answered_too_early",
        "the host answers a read before its state machine is as far as the core says",
        (
            Edit(
                _SERVICE,
                "if effect.index <= self._process.machine.last_applied:",
                "if True:",
            ),
        ),
        ("linearizable",),
        seed=1,
    ),
    Fault(
        "answered_for_somebody_else",
        "the host answers a proposal with what another term's entry at its index came to",
        (
            Edit(
                _SERVICE,
                "for attempt, result in zip(attempts, results, strict=True):",
                "for attempt, result in zip(attempts, results):",
            ),
            Edit(
                _SERVICE,
                "if term == batch.term and results is not None:",
                "if results is not None:",
            ),
        ),
        (
            "is told to stand at",
            "linearizable",
            "was answered with",
            "was promised",
            "revision ",
        ),
        focus=diverging_logs,
        seed=27,
    ),
)
