"""Going on when a majority is lost for good: one survivor begins a new generation by itself.

No vote can make this safe: entries that only the lost ones had are gone, and whether a silent
member is lost or only out of reach nobody here can tell. People decide that; what is done here
keeps the rest of Raft's promises. The survivor that goes on is the one with the most complete log.
Its new generation begins with one entry, so it is there as a whole or not at all, and shows itself
only once that entry is on disk. From then on members of other generations are strangers to it: the
survivors among them come in again with empty logs, by a snapshot, so that nobody else in the new
generation has a configuration of an older one in its log; the others are removed for ever.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from raft_agent.consensus import quorum
from raft_agent.consensus.batch import BatchKind, encode
from raft_agent.consensus.generations import generation_of
from raft_agent.consensus.membership import encode_configuration
from raft_agent.consensus.state import RaftState
from raft_agent.consensus.types import (
    Abandon,
    Configuration,
    Generation,
    Member,
    Recover,
    Recovered,
    RefusalReason,
    Role,
    Standing,
    Superseded,
    Survivor,
)

# A node whose generation may still have a quorum finds a leader within a few timeouts.
_LEADERLESS_TIMEOUTS = 10


class Verdict(msgspec.Struct, frozen=True):
    """`refusal`: why this node is not the one to recover at, None when it is. `best`: the id of the
    survivor with the most complete log."""

    refusal: RefusalReason | None
    best: int


def judge(state: RaftState, survivors: Iterable[Survivor]) -> Verdict:
    """Whether the cluster may go on from this node alone, by what the others say."""
    configuration = state.configuration
    own = standing_of(state)
    if configuration is None:
        return Verdict(RefusalReason.FRESH, 0)
    members = {member.id for member in configuration.members} - {state.member_id}
    answers = {survivor.id: survivor.standing for survivor in survivors if survivor.id in members}
    alike = {peer: said for peer, said in answers.items() if said.generation == own.generation}
    able = {peer: said for peer, said in alike.items() if said.is_able}
    logs = {peer: (said.last_term, said.last_index) for peer, said in able.items()}
    logs[state.member_id] = (own.last_term, own.last_index)
    # Among equals this node, so that nobody is sent about.
    best = max(logs, key=lambda peer: (logs[peer], peer == state.member_id, peer))
    refusal = None
    if state.failed:
        refusal = RefusalReason.STORAGE_FAILED
    elif state.was_removed:
        refusal = RefusalReason.REMOVED
    elif state.diverged_index:
        # From its log it is rebuilt with nobody's help, and may recover then.
        refusal = RefusalReason.STATE_DIFFERS
    elif state.recovering or state.installing:
        refusal = RefusalReason.RECOVERY_PENDING
    elif len(alike) < len(answers):
        refusal = RefusalReason.OTHER_GENERATION
    elif own.knows_leader or any(said.knows_leader for said in alike.values()):
        refusal = RefusalReason.LEADER_KNOWN
    elif quorum.has_quorum(configuration, _electing(state, logs)):
        refusal = RefusalReason.QUORUM_ANSWERS
    elif best != state.member_id:
        refusal = RefusalReason.RECOVER_ELSEWHERE
    return Verdict(refusal, best)


def _electing(state: RaftState, logs: dict[int, tuple[int, int]]) -> set[int]:
    """Who of those that answer can make up a majority that elects one of them; `logs`: how theirs
    end. While the end of this node's log is damaged, it votes only for a log that has all of it
    (`RaftState.is_up_to_date`) and does not stand itself."""
    others = logs.keys() - {state.member_id}
    has_a_vote = state.vote_floor == (0, 0) or any(
        state.is_up_to_date(*logs[peer]) for peer in others
    )
    return {*others, state.member_id} if has_a_vote else {*others}


def standing_of(state: RaftState) -> Standing:
    """What this node says to whoever asks before a recovery."""
    return Standing(
        generation_of(state.configuration).id,
        state.log.last_term,
        state.log.last_index,
        not state.failed and not state.was_removed,
        bool(state.leader_id) or state.leader_is_alive(),
    )


class Recovery:
    """`address`: where this node can be dialled now."""

    def __init__(self, state: RaftState, address: str) -> None:
        self._state = state
        self._address = address
        self._tag = 0

    def begin(self, event: Recover) -> None:
        """Append the new generation's first entry."""
        state = self._state
        verdict = judge(state, event.survivors)
        configuration = state.configuration
        if verdict.refusal is not None or configuration is None:
            state.refuse_recovery(event.tag, verdict.refusal or RefusalReason.FRESH, verdict.best)
            return
        following = self._following(configuration, event)
        # Later than any term that this node has seen: what damage may hide is of none that is.
        term = state.current_term + 1
        state.become_follower(term, 0)
        payload = encode_configuration(following)
        index = state.log.last_index + 1
        state.note("recovery_begins", index=index, generation=f"{event.generation:016x}")
        self._tag, state.recovering = event.tag, index
        state.append([encode(BatchKind.CONFIGURATION, index, term, 1, payload)])

    def _following(self, configuration: Configuration, event: Recover) -> Configuration:
        state = self._state
        former = generation_of(configuration)
        known = {member.id: member for member in configuration.members}
        own = msgspec.structs.replace(known[state.member_id], address=self._address)
        awaited = sorted(
            (
                Member(survivor.id, known[survivor.id].name, survivor.address)
                for survivor in event.survivors
                if survivor.id in known and survivor.id != state.member_id
            ),
            key=lambda member: member.id,
        )
        return Configuration(
            configuration.cluster_id,
            (own,),
            (own.id,),
            removed=tuple(sorted({*configuration.removed, *known} - {own.id})),
            generation=Generation(
                event.generation,
                (*former.former, former.id),
                tuple(awaited),
                max(event.floor, former.floor),
            ),
        )

    def pump(self) -> None:
        """The new generation shows itself once its first entry is on disk."""
        state = self._state
        if state.recovering and state.persisted_index >= state.recovering:
            index, state.recovering = state.recovering, 0
            state.note(
                "recovered",
                index=index,
                generation=f"{generation_of(state.configuration).id:016x}",
            )
            state.effects.append(Recovered(self._tag, index))
            # Nobody else may stand, so there is nobody to wait for.
            state.election_due_us = state.now_us

    def superseded(self, event: Superseded) -> None:
        """A member has gone on without this node. Who hears a leader has a majority behind it, and
        goes on as well: then the recovery was a mistake, and people have to choose.
        """
        state = self._state
        if state.role is Role.FRESH or state.was_removed or state.recovering:
            return
        generation = f"{event.generation:016x}"
        if state.leader_id:
            if state.told_of_generation != event.generation:
                state.told_of_generation = event.generation
                state.note("superseded_ignored", sender=event.peer, generation=generation)
            return
        leaderless_us = state.now_us - state.leaderless_since_us
        if event.is_awaited:
            if leaderless_us < _LEADERLESS_TIMEOUTS * state.settings.election_timeout_max_us:
                return  # it will be told again
            state.effects.append(Abandon(event.generation))
        state.note("superseded", sender=event.peer, generation=generation)
        state.superseded = event.generation
        state.become_follower(state.current_term, 0)
