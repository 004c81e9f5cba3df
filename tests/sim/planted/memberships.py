"""Faults in changes of the membership (§6 of the paper, §4 of the thesis)."""

from __future__ import annotations

from tests.sim.planted.fault import Edit, Fault
from tests.sim.planted.focus import memberships

_QUORUM = "raft_agent.consensus.quorum"
_CHANGES = "raft_agent.consensus.changes"
_MEMBERSHIP = "raft_agent.consensus.membership"
_RECONFIGURATION = "raft_agent.consensus.reconfiguration"
_STATE = "raft_agent.consensus.state"
_ELECTION = "raft_agent.consensus.election"

_UNSAFE = (
    "two leaders in one term",
    "a term has one leader",
    "leader completeness",
    "log matching",
    "state machine safety",
    "committed entries differ",
    "an entry is cut that is committed elsewhere",
)

FAULTS = (
    Fault(
        "commit_by_the_new_voters_alone",
        "while joint, what most of the new voters have is committed",
        (
            Edit(
                _QUORUM,
                "    if configuration.voters_outgoing:\n"
                "        reached = min(reached,"
                " _reached_by_majority(configuration.voters_outgoing, values))\n",
                "",
            ),
        ),
        ("not on the disks of a majority", *_UNSAFE),
        focus=memberships,
    ),
    Fault(
        "elected_by_the_old_voters_alone",
        "while joint, most of the old voters are enough to be elected",
        (
            Edit(
                _QUORUM,
                "if not _majority(configuration.voters, agreeing):",
                "if not _majority(configuration.voters_outgoing or configuration.voters,"
                " agreeing):",
            ),
        ),
        ("elected without the votes of a quorum", *_UNSAFE),
        unit_test="test_joint_consensus:test_a_read_needs_both_majorities_while_joint",
    ),
    Fault(
        "joint_configuration_left_too_early",
        "a leader leaves the joint configuration before it is committed",
        (
            Edit(
                _RECONFIGURATION,
                "        if index > state.commit_index:\n            return\n"
                "        if changes.is_joint",
                "        if changes.is_joint",
            ),
        ),
        ("a configuration follows one that is not committed", *_UNSAFE),
        focus=memberships,
    ),
    Fault(
        "change_before_the_no_op",
        "a new leader changes the members before it has committed anything in its term",
        (
            Edit(
                _RECONFIGURATION,
                "        if state.commit_index < leadership.first_index:\n"
                "            raise ChangeRefusedError(RefusalReason.NOT_READY)\n",
                "",
            ),
        ),
        ("a configuration is changed before its leader has committed anything", *_UNSAFE),
        focus=memberships,
        seed=3,
    ),
    Fault(
        "cut_configuration_stays_in_force",
        "a configuration that was cut from the log is gone by",
        (
            Edit(
                _MEMBERSHIP,
                "while self._history and self._history[-1][0] >= from_index:",
                "while False:",
            ),
        ),
        (
            "the configuration in force is in the log",
            "the configuration in force is not the log's latest",
        ),
        focus=memberships,
        seed=9,
    ),
    Fault(
        "configuration_in_force_once_committed",
        "a node goes by the latest configuration that it knows to be committed",
        (
            Edit(
                _STATE,
                "        return self.membership.current\n\n    @property\n    def can_stand",
                "        known = self.membership.in_force_at(max(self.commit_index, 1))\n"
                "        return known[1] if known else None\n\n    @property\n    def can_stand",
            ),
        ),
        ("not on the disks of a majority", "elected without the votes", *_UNSAFE),
        focus=memberships,
        seed=5,
    ),
    Fault(
        "learners_count_for_commits",
        "what a learner has counts like what a voter has",
        (
            Edit(
                _QUORUM,
                "reached = _reached_by_majority(configuration.voters, values)",
                "reached = _reached_by_majority("
                "(*configuration.voters, *configuration.learners), values)",
            ),
        ),
        ("not on the disks of a majority", *_UNSAFE),
        focus=memberships,
    ),
    Fault(
        "removed_voter_still_counts",
        "a voter that was removed is none of the members any more, but still a voter",
        (
            Edit(
                _CHANGES,
                "voters = _sorted({*configuration.voters, *promoted} - gone)",
                "voters = _sorted({*configuration.voters, *promoted})",
            ),
        ),
        (
            "a member that knows that it was removed",
            "a change is not what is committed",
            "no progress after healing",
        ),
        focus=memberships,
    ),
    Fault(
        "no_joint_configuration",
        "the new voters alone count as soon as their configuration is in the log",
        (
            Edit(
                _CHANGES,
                "return structs.replace(following, voters_outgoing=configuration.voters)",
                "return _without(following, gone)",
            ),
        ),
        _UNSAFE,
        unit_test="test_joint_consensus:test_a_leader_without_one_of_the_majorities_steps_down",
    ),
    Fault(
        "removed_members_are_not_told",
        "nobody tells a member that was removed",
        (
            Edit(
                "raft_agent.consensus.presence",
                "self._state.told_removed = True",
                "pass",
            ),
        ),
        ("no progress after healing",),
        focus=memberships,
        seed=6,
    ),
    Fault(
        "leaving_voter_never_stands",
        "a voter with its own removal in the log does not stand for election any more",
        (
            Edit(
                _STATE,
                "self.membership.may_lead(self.member_id, self.commit_index)",
                "is_voter(self.configuration, self.member_id)",
            ),
        ),
        ("no progress after healing",),
        focus=memberships,
        seed=35,
    ),
    Fault(
        "learner_never_stands_in",
        "a learner to which a dead leader left entries stands for nobody who needs its vote",
        (Edit(_ELECTION, "or (is_sought and state.can_stand_in)", "or (is_sought and False)"),),
        ("no progress after healing",),
        unit_test="test_found_by_simulation:"
        "test_a_learner_that_alone_has_a_lost_leaders_entry_brings_it_in",
    ),
    Fault(
        "stand_in_with_a_damaged_end",
        "a learner stands in although its last batch is damaged, or it was removed",
        (
            Edit(
                _STATE,
                "            and self.member_id in configuration.learners\n"
                "            and self.is_fit_to_lead\n",
                "            and self.member_id in configuration.learners\n",
            ),
        ),
        _UNSAFE,
        unit_test="test_stand_ins:test_who_may_not_lead_does_not_stand_in",
    ),
    Fault(
        "stand_in_counts_itself",
        "a vote counts whoever gives it, that of a learner which stands in for itself too",
        (
            Edit(
                _QUORUM,
                "return sum([voter in agreeing for voter in voters]) > len(voters) // 2",
                "return len(agreeing) > len(voters) // 2",
            ),
        ),
        ("elected without the votes", *_UNSAFE),
        unit_test="test_stand_ins:test_its_own_vote_is_none",
    ),
)
