"""First start: fresh nodes form a cluster, exactly one of them writes its first entry.

The node with the smallest name asks the others. Each fresh one answers with a token for the
asker's id. Once all have answered, the asker writes the first entry (ids, names, addresses, a
random cluster id) and sends it to each with that node's token. A question from another id makes the
tokens before it void, so an entry from an asker that has since died and come back with an empty
disk, and another id, can't be adopted. One id never writes two different first entries: it sends
one only once it is on its own disk. A node that has adopted the entry never answers "fresh" again,
so no second one can be written over it.

Members bring in who is missing: a fresh node answers any Raft message with its token, and gets the
first entry if its id stands in it.
"""

from __future__ import annotations

from collections.abc import Callable

from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.consensus.generations import generation_of
from raft_agent.consensus.membership import FIRST_INDEX, first_entry, read_configuration
from raft_agent.consensus.state import RaftState
from raft_agent.consensus.types import (
    BootstrapAnswer,
    BootstrapAsk,
    BootstrapInstall,
    Configuration,
    FoundCluster,
    Member,
    Role,
    SnapshotChunk,
)

_ASK_INTERVAL_US = 200_000
# Strangers can claim any number of ids.
_MAX_TOKENS = 64


class Bootstrap:
    """`names`: everybody whom the configuration file lists, this node included; empty when this
    node waits to be joined. `alone`: a new cluster of this one member. `on_latecomer(peer, token)`
    is called at a leader whose log has no beginning any more for a fresh peer to start with."""

    def __init__(
        self,
        state: RaftState,
        on_latecomer: Callable[[int, int], None],
        *,
        name: str,
        address: str,
        names: tuple[str, ...],
        alone: bool,
    ) -> None:
        self._state = state
        self._on_latecomer = on_latecomer
        self._name = name
        self._address = address
        self._names = (name,) if alone else names
        self._tokens: dict[int, int] = {}
        self._connected: dict[str, int] = {}
        self._answers: dict[str, tuple[int, BootstrapAnswer]] = {}
        self._told: set[str] = set()
        self.ask_due_us = state.now_us

    @property
    def asks(self) -> bool:
        """Whether it falls to this node to write the first entry."""
        return (
            self._state.role is Role.FRESH
            and not self._state.installing
            and bool(self._names)
            and self._name == min(self._names)
        )

    def tick(self) -> None:
        """Ask whoever has not answered yet."""
        state = self._state
        self.ask_due_us = state.now_us + _ASK_INTERVAL_US
        if set(self._names) == {self._name}:
            self._found()
            return
        for name in self._names:
            peer = self._connected.get(name)
            if peer is not None and name not in self._answers:
                self._ask(peer)

    def peer_connected(self, peer: int, name: str) -> None:
        if self._state.role is not Role.FRESH or name not in self._names or name == self._name:
            return
        self._connected[name] = peer
        # Whoever it was before may have gone, and its token with it.
        self._answers.pop(name, None)
        self._ask(peer)

    def peer_lost(self, peer: int) -> None:
        for name in [name for name, known in self._connected.items() if known == peer]:
            del self._connected[name]
            self._answers.pop(name, None)

    def _ask(self, peer: int) -> None:
        """Ask for a token; who does not found asks only who is there, and lists no names."""
        state = self._state
        state.send(
            peer,
            BootstrapAsk(
                state.current_term,
                state.next_request_id(),
                self._name,
                self._address,
                self._names if self.asks else (),
            ),
        )

    # --- the asked one

    def asked(self, sender: int, message: BootstrapAsk) -> None:
        """Somebody wants to know who is there; with names, to write a first entry: whoever wanted
        to before may not any more."""
        if message.names:
            mine = self._tokens.get(sender)
            self._tokens = {} if mine is None else {sender: mine}
        self.answer(sender, message.request_id)

    def answer(self, sender: int, request_id: int = 0) -> None:
        """Say who this node is; a fresh one gives a token, the same one as long as it is good: an
        answer that is still on its way must not void the one that is used just now."""
        state = self._state
        fresh = state.role is Role.FRESH
        if fresh and sender not in self._tokens:
            if len(self._tokens) >= _MAX_TOKENS:
                self._tokens.clear()
            self._tokens[sender] = state.random.u64() | 1
        configuration = state.configuration
        state.send(
            sender,
            BootstrapAnswer(
                state.current_term,
                request_id,
                self._name,
                self._address,
                self._names,
                fresh,
                self._tokens[sender] if fresh else 0,
                configuration.cluster_id if configuration else "",
            ),
        )

    def install(self, sender: int, message: BootstrapInstall) -> None:
        state = self._state
        if state.role is not Role.FRESH or message.token != self._tokens.get(sender):
            return
        if state.installing:
            return  # a snapshot, from another member, is to be this node's log
        batch = message.batch
        if batch.kind != BatchKind.CONFIGURATION or batch.first_index != FIRST_INDEX:
            return
        configuration = read_configuration(batch)
        if configuration is None or (
            state.member_id not in configuration.voters and not message.joins
        ):
            return
        state.note("cluster_adopted", cluster_id=configuration.cluster_id, sender=sender)
        self._adopt(configuration, batch)

    def takes_snapshot(self, sender: int, message: SnapshotChunk) -> bool:
        """Whether a fresh node may take a member's snapshot in place of a first entry: it comes
        with this node's own token. The term is the leader's from then on."""
        state = self._state
        if message.token == 0 or message.token != self._tokens.get(sender):
            return False
        if message.term > state.current_term:
            state.save_vote(message.term, 0)
        return True

    # --- the asker

    def answered(self, sender: int, message: BootstrapAnswer) -> None:
        state = self._state
        if state.role is not Role.FRESH:
            if message.fresh:
                self._bring_in(sender, message.token)
            return
        if self._connected.get(message.name) != sender:
            # A late word of somebody whose place another one has taken.
            return
        problem = self._problem(message)
        if problem:
            self._answers.clear()
            if problem not in self._told:
                self._told.add(problem)
                state.note("bootstrap_waits", reason=problem)
            return
        if not self.asks:
            return
        self._answers[message.name] = (sender, message)
        if len(self._answers) == len(self._names) - 1:
            self._found()

    def _problem(self, message: BootstrapAnswer) -> str:
        if not message.fresh:
            return (
                f"{message.name} belongs to the cluster {message.cluster_id} already, so run: "
                f"raftctl --node {message.name} join {self._name} {self._address}"
            )
        if message.names != self._names:
            theirs = ", ".join(message.names)
            return f"{message.name} lists other members in its configuration: {theirs}"
        return ""

    def _found(self) -> None:
        state = self._state
        members = [Member(state.member_id, self._name, self._address)]
        members += [
            Member(sender, answer.name, answer.address) for sender, answer in self._answers.values()
        ]
        members.sort(key=lambda member: member.id)
        cluster_id = f"{state.random.u64():016x}{state.random.u64():016x}"
        configuration = Configuration(
            cluster_id, tuple(members), tuple(member.id for member in members)
        )
        state.note("cluster_founded", cluster_id=cluster_id, members=len(members))
        batch = first_entry(configuration)
        after_log = self._adopt(configuration, batch)
        for sender, answer in self._answers.values():
            state.send(
                sender,
                BootstrapInstall(
                    state.current_term, state.next_request_id(), answer.token, batch, False
                ),
                after_log=after_log,
            )
        self._answers.clear()

    def _adopt(self, configuration: Configuration, batch: Batch) -> int:
        state = self._state
        state.effects.append(FoundCluster(configuration.cluster_id))
        if state.current_term < batch.term:
            state.save_vote(batch.term, 0)
        state.role = Role.FOLLOWER
        state.reset_election_timer()
        return state.append([batch])

    # --- a member

    def _bring_in(self, peer: int, token: int) -> None:
        """`peer` is fresh; give it the log's beginning if it was meant to have it: as a founding
        member that was never there, or as a learner, which is nobody's majority.

        Any other voter has had entries that count, and has lost them: it may not come back as if
        nothing had happened, and neither may one that this leader knows to have had entries.
        """
        state = self._state
        configuration, first = state.configuration, state.membership.first
        if configuration is None or first is None:
            return
        is_learner = peer in configuration.learners
        # In a later generation nobody may begin with the log of an older one: its configurations
        # would be in force again until that log was through.
        has_beginning = (
            state.log.base_index == 0
            and generation_of(first[1]).id == generation_of(configuration).id
        )
        is_founder = has_beginning and peer in first[1].voters
        progress = state.leadership.progress.get(peer) if state.leadership else None
        if progress is not None and (progress.had_entries or not (is_learner or is_founder)):
            if state.leadership is not None and state.leadership.is_news("log_lost", peer):
                state.note("log_lost", sender=peer)
        elif is_founder or (is_learner and has_beginning):
            install = BootstrapInstall(
                state.current_term,
                state.next_request_id(),
                token,
                first_entry(first[1]),
                not is_founder,
            )
            state.send(peer, install, after_log=state.write_that_holds(FIRST_INDEX))
        elif is_learner:
            self._on_latecomer(peer, token)
