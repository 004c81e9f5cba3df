"""Faults in elections and votes, and in what must be on disk for them."""

from __future__ import annotations

from tests.sim.planted.fault import Edit, Fault
from tests.sim.planted.focus import damaged_logs, diverging_logs

_ELECTION = "raft_agent.consensus.election"
_STATE = "raft_agent.consensus.state"
_NODE = "raft_agent.consensus.node"
_QUORUM = "raft_agent.consensus.quorum"

FAULTS = (
    Fault(
        "vote_not_durable",
        "messages leave before the term and the vote they were written under are on disk",
        (
            Edit(
                _STATE,
                "after_vote = self.vote_seq if self.vote_seq > self.vote_persisted_seq else 0",
                "after_vote = 0",
            ),
        ),
        ("a vote left before it was on disk", "a message of a term that is not on disk"),
    ),
    Fault(
        "vote_never_saved",
        "a voter remembers its vote but does not have it written",
        (Edit(_ELECTION, "state.save_vote(message.term, sender)", "state.voted_for = sender"),),
        ("a vote left before it was on disk",),
        seed=3,
    ),
    Fault(
        "vote_forgotten_at_restart",
        "a node that starts does not look at whom it voted for",
        (
            Edit(
                _STATE,
                "self.voted_for = vote.voted_for if vote.term == self.current_term else 0",
                "self.voted_for = 0",
            ),
        ),
        ("two votes in one term", "a vote left before it was on disk", "two leaders in one term"),
        unit_test="test_figure2_state:test_voted_for_is_persistent",
    ),
    Fault(
        "term_forgotten_at_restart",
        "a node that starts takes its term from the log alone",
        (
            Edit(
                _STATE,
                "self.current_term = max(vote.term, self.log.last_term)",
                "self.current_term = self.log.last_term",
            ),
        ),
        ("the term goes back at a restart",),
    ),
    Fault(
        "votes_for_everybody",
        "a voter grants every request in a term",
        (
            Edit(
                _ELECTION,
                "granted = (is_free or state.voted_for == sender) and state.is_up_to_date(",
                "granted = state.is_up_to_date(",
            ),
        ),
        ("a vote left before it was on disk", "two votes in one term", "two leaders in one term"),
    ),
    Fault(
        "pre_vote_resets_vote",
        "granting a pre-vote takes the vote of the term back",
        (
            Edit(
                _ELECTION,
                "        term = message.term if granted else state.current_term\n",
                "        if granted:\n            state.voted_for = 0\n"
                "        term = message.term if granted else state.current_term\n",
            ),
        ),
        (
            "two votes in one term",
            "two leaders in one term",
            "a leader voted for itself and knows itself",
            "a vote left before it was on disk",
        ),
        seed=36,
    ),
    Fault(
        "pre_votes_count_as_votes",
        "the grants of the pre-vote are kept for the election",
        (
            Edit(
                _ELECTION,
                "        self._granted = set()\n        self._refused = set()\n\n",
                "        self._refused = set()\n\n",
            ),
        ),
        (
            "elected without the votes of a quorum",
            "two leaders in one term",
            "a term has one leader",
            "leader completeness",
        ),
    ),
    Fault(
        "refusals_count_as_votes",
        "a refused vote is counted like a granted one",
        (
            Edit(
                _ELECTION,
                "Role.CANDIDATE and message.request_id == self._request_id:\n"
                "            (self._granted if message.granted else self._refused).add(sender)",
                "Role.CANDIDATE and message.request_id == self._request_id:\n"
                "            self._granted.add(sender)",
            ),
        ),
        (
            "elected without the votes of a quorum",
            "two leaders in one term",
            "a term has one leader",
            "leader completeness",
        ),
    ),
    Fault(
        "votes_for_any_log",
        "a voter does not compare logs (§5.4.1)",
        (Edit(_STATE, "return (last_term, last_index) >= own", "return True"),),
        ("leader completeness",),
        seed=14,
    ),
    Fault(
        "longer_log_wins",
        "a voter compares the lengths of logs and not their last terms",
        (
            Edit(
                _STATE,
                "return (last_term, last_index) >= own",
                "return last_index >= own[1]",
            ),
        ),
        ("leader completeness", "an entry is cut that is committed elsewhere"),
        focus=diverging_logs,
        seed=4,
    ),
    Fault(
        "half_is_a_majority",
        "half of the voters are enough to be elected",
        (Edit(_QUORUM, "> len(voters) // 2", ">= len(voters) // 2"),),
        ("two leaders in one term", "a term has one leader", "leader completeness"),
        seed=6,
    ),
    Fault(
        "leader_ignores_later_terms",
        "a leader does not step down when it hears of a later term",
        (
            Edit(
                _NODE,
                "        if message.term > current:\n",
                "        if message.term > current and state.leadership is not None:\n"
                "            return False\n"
                "        if message.term > current:\n",
            ),
        ),
        ("no progress after healing", "no fresh write after healing"),
        unit_test="test_partitions:test_a_rejoining_node_with_an_inflated_term_costs_one_election_at_most",
    ),
    Fault(
        "deposed_leader_is_not_told",
        "whoever leads an older term gets no answer, while its followers refuse to vote",
        (
            Edit(
                _NODE,
                "            self._appends.refuse_stale(sender, message)\n",
                "            pass\n",
            ),
        ),
        ("no progress after healing", "no fresh write after healing"),
        unit_test="test_partitions:test_a_rejoining_node_with_an_inflated_term_costs_one_election_at_most",
    ),
    Fault(
        "damaged_end_forgotten_when_voting",
        "a node whose last batch is damaged votes as if it had never been there",
        (
            Edit(
                _STATE,
                "own = max((self.log.last_term, self.log.last_index), self.vote_floor)",
                "own = (self.log.last_term, self.log.last_index)",
            ),
        ),
        ("leader completeness", "an entry is cut that is committed elsewhere"),
        unit_test="test_vote_floor:test_it_votes_as_if_its_log_ended_with_the_damaged_batch",
    ),
    Fault(
        "damaged_end_stands",
        "a node whose last batch is damaged stands for election",
        (
            Edit(
                _STATE,
                "            and self.vote_floor == (0, 0)\n",
                "",
            ),
        ),
        ("leader completeness", "two different entries", "an entry is cut"),
        focus=damaged_logs,
        seed=1,
    ),
    Fault(
        "two_founders",
        "every node takes it on itself to write the first entry, not only the smallest name",
        (
            Edit(
                "raft_agent.consensus.bootstrap",
                "            and self._name == min(self._names)\n",
                "",
            ),
        ),
        (
            "two clusters came out of one first start",
            "state machine safety",
            "have other logs",
        ),
    ),
    Fault(
        "any_token_opens",
        "a fresh node takes a first entry whatever its token",
        (
            Edit(
                "raft_agent.consensus.bootstrap",
                "if state.role is not Role.FRESH or message.token != self._tokens.get(sender):",
                "if state.role is not Role.FRESH:",
            ),
        ),
        ("two clusters came out of one first start", "no progress after healing"),
        unit_test="test_first_start:test_a_question_from_another_id_makes_the_tokens_before_it_void",
    ),
)
