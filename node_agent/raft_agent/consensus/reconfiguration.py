"""Changing the members of a running cluster (§6 of the paper; §4 of the thesis): the leader's side.

One change at a time, and none before the leader has committed an entry of its own term: without
that the changes of two leaders could each count a majority that the other does not know (Ongaro,
"bug in single-server membership changes", raft-dev 2015). Joint configurations would survive it;
the rule costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from raft_agent.consensus import changes, quorum
from raft_agent.consensus.batch import BatchKind
from raft_agent.consensus.changes import ChangeRefusedError
from raft_agent.consensus.leadership import CatchUp, Leadership
from raft_agent.consensus.membership import encode_configuration
from raft_agent.consensus.state import RaftState
from raft_agent.consensus.types import (
    Announce,
    ChangeMembership,
    Configuration,
    Member,
    MembershipChange,
    MembershipChanged,
    RefusalReason,
    Removed,
    TimeoutNow,
)


class Reconfiguration:
    """`append` puts one batch of a kind, count and payload into the leader's log and sends it."""

    def __init__(
        self, state: RaftState, append: Callable[[Leadership, int, int, bytes], None]
    ) -> None:
        self._state = state
        self._append = append

    # --- asked for

    def change(self, event: ChangeMembership) -> None:
        state = self._state
        leadership = state.leadership
        if leadership is None:
            state.refuse_not_leading(event.tag)
            return
        try:
            self._check_moment(leadership, event.expected_index)
            following = changes.change(self._configuration(), event.change)
            if not all(self._has_come(leadership, peer) for peer in event.change.promote):
                raise ChangeRefusedError(RefusalReason.NOT_READY)
            if not event.force and not self._keeps_quorum(leadership, following):
                raise ChangeRefusedError(RefusalReason.WOULD_LOSE_QUORUM)
        except ChangeRefusedError as refused:
            state.refuse(event.tag, refused.reason)
            return
        if following == self._configuration():
            state.effects.append(MembershipChanged(event.tag, state.membership.index))
            return
        leadership.change_tag = event.tag
        self._put(leadership, following)

    def _configuration(self) -> Configuration:
        configuration = self._state.configuration
        if configuration is None:
            raise ChangeRefusedError(RefusalReason.NOT_READY)
        return configuration

    def _check_moment(self, leadership: Leadership, expected_index: int = 0) -> None:
        """Raises ChangeRefusedError when no change may begin now."""
        state = self._state
        if state.commit_index < leadership.first_index:
            raise ChangeRefusedError(RefusalReason.NOT_READY)
        if leadership.transfer is not None:
            raise ChangeRefusedError(RefusalReason.TRANSFERRING)
        if state.membership.index > state.commit_index or changes.is_joint(self._configuration()):
            raise ChangeRefusedError(RefusalReason.CHANGE_PENDING)
        if expected_index not in (0, state.membership.index):
            raise ChangeRefusedError(RefusalReason.CONFIGURATION_MOVED)

    def _has_come(self, leadership: Leadership, learner: int) -> bool:
        """Whether it has entries, as far as this leader knows: nobody would give its first ones to
        a voter, which might have lost some that count."""
        progress = leadership.progress.get(learner)
        return progress is not None and progress.had_entries

    def _keeps_quorum(self, leadership: Leadership, following: Configuration) -> bool:
        """Whether a quorum of every set of voters answers at the moment, and every new voter.

        A new one that has no log yet would get none: a voter without a log may have lost one.
        """
        voters = self._configuration().voters
        if following.voters == voters:
            return True
        answering = self._answering(leadership)
        new = set(following.voters) - set(voters)
        return new <= answering and quorum.has_quorum(following, answering)

    def _answering(self, leadership: Leadership) -> set[int]:
        """This leader, and the peers that were heard within an election timeout and of which it is
        known how far they are."""
        state = self._state
        oldest_us = state.now_us - state.settings.election_timeout_max_us
        answering = {
            peer
            for peer, progress in leadership.progress.items()
            if progress.last_contact_us >= oldest_us and progress.match_index > 0
        }
        answering.add(state.member_id)
        return answering

    def _put(self, leadership: Leadership, following: Configuration) -> None:
        state = self._state
        state.note(
            "configuration_changes",
            index=state.log.last_index + 1,
            voters=len(following.voters),
            learners=len(following.learners),
        )
        self._append(leadership, BatchKind.CONFIGURATION, 1, encode_configuration(following))

    # --- going on

    def advance(self, leadership: Leadership) -> None:
        """What a commit, a reply or a heartbeat may have made possible."""
        state = self._state
        membership = state.membership
        configuration = membership.current
        if configuration is None or state.commit_index < leadership.first_index:
            return
        index = membership.index
        if index > state.commit_index:
            return
        if changes.is_joint(configuration):
            self._put(leadership, changes.leave_joint(configuration))
            return
        if leadership.settled_index != index:
            leadership.settled_index = index
            self._settled(leadership, configuration, index)
        if state.leadership is not leadership or leadership.transfer is not None:
            return
        # A learner that never catches up must not keep the others' addresses from moving.
        if not self._promote(leadership, configuration) and leadership.announced:
            self._move(leadership, configuration)

    def _settled(self, leadership: Leadership, configuration: Configuration, index: int) -> None:
        """A configuration that is to last is committed: tell who asked for it, and who is out."""
        state = self._state
        tag, leadership.change_tag = leadership.change_tag, None
        if tag is not None:
            state.effects.append(MembershipChanged(tag, index))
        for peer in leadership.departed:
            state.send(peer, Removed(state.current_term, state.next_request_id()))
        leadership.departed.clear()
        if state.member_id not in configuration.voters:
            self._step_out(leadership, configuration)

    def _step_out(self, leadership: Leadership, configuration: Configuration) -> None:
        """§6: a leader that is no voter any more steps down once that is committed. It has the
        furthest of the voters stand at once, so that nobody waits for a time-out."""
        state = self._state
        reached = {
            peer: progress.match_index
            for peer, progress in leadership.progress.items()
            if peer in configuration.voters and peer not in leadership.odd
        }
        heir = max(reached, key=lambda peer: (reached[peer], peer), default=0)
        if heir:
            state.send(heir, TimeoutNow(state.current_term, state.next_request_id()))
        state.become_follower(state.current_term, 0)

    def _promote(self, leadership: Leadership, configuration: Configuration) -> bool:
        """Make one of the learners that have caught up, and are there, a voter; whether there was
        one."""
        for entry in configuration.joining:
            catch_up = leadership.catching_up.get(entry.id)
            if catch_up is None or not catch_up.is_done:
                continue
            following = changes.change(configuration, changes.promotion(configuration, entry))
            if self._keeps_quorum(leadership, following):
                self._state.note("learner_promoted", target=entry.id)
                self._put(leadership, following)
                return True
        return False

    def _move(self, leadership: Leadership, configuration: Configuration) -> None:
        """Have the configuration follow the members that have come up on other addresses: all in
        one step if that can be, since two may have swapped theirs, else one of them."""
        said = {**leadership.refused_moves, **leadership.announced}
        leadership.announced.clear()
        moved = [
            Member(member.id, member.name, said[member.id])
            for member in configuration.members
            if said.get(member.id, member.address) != member.address
        ]
        leadership.refused_moves = {member.id: member.address for member in moved}
        for some in (moved, *([member] for member in moved)):
            try:
                following = changes.change(configuration, MembershipChange(update=tuple(some)))
            except ChangeRefusedError as refused:
                self._note_refused_move(leadership, some, refused)
                continue
            for member in some:
                del leadership.refused_moves[member.id]
                self._state.note("address_moved", sender=member.id, address=member.address)
            if some:
                self._put(leadership, following)
            return

    def _note_refused_move(
        self, leadership: Leadership, members: list[Member], refused: ChangeRefusedError
    ) -> None:
        if len(members) > 1:
            return  # each of them is tried on its own
        (member,) = members
        if leadership.is_news("address_refused", member.id, member.address):
            reason = str(refused.reason)
            self._state.note("address_refused", sender=member.id, reason=reason)

    # --- learners that catch up

    def peer_connected(self, peer: int) -> None:
        """A learner that was away has to catch up again: what it has missed may be much."""
        leadership = self._state.leadership
        if leadership is not None:
            leadership.catching_up.pop(peer, None)

    def heard_of(self, leadership: Leadership, peer: int) -> None:
        """A peer acknowledged entries. §4.2.1 of the thesis: a learner has caught up when a round,
        in which it gets what was there when the round began, lasts no longer than an election
        timeout: then it holds up no commit for longer than an election would.
        """
        state = self._state
        configuration = state.configuration
        if configuration is None or all(entry.id != peer for entry in configuration.joining):
            return
        match_index = leadership.progress[peer].match_index
        catch_up = leadership.catching_up.get(peer)
        if catch_up is None:
            catch_up = CatchUp(state.log.last_index, state.now_us)
            leadership.catching_up[peer] = catch_up
        if catch_up.is_done or match_index < catch_up.target_index:
            return
        took_us = state.now_us - catch_up.began_us
        if took_us <= state.settings.election_timeout_min_us or match_index == state.log.last_index:
            catch_up.is_done = True
        else:
            state.note("catching_up", target=peer, round=catch_up.round, index=match_index)
            catch_up.round += 1
            catch_up.target_index, catch_up.began_us = state.log.last_index, state.now_us

    # --- announcements

    def announced(self, sender: int, message: Announce) -> None:
        """A member says where it is (a stranger is answered before it comes to this)."""
        leadership = self._state.leadership
        if leadership is None:
            return
        member = self._state.membership.member(sender)
        if member is not None and message.address and member.address != message.address:
            leadership.announced[sender] = message.address
            self.advance(leadership)
