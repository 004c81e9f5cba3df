"""The cluster version at a running node: its promise, the leader's steps towards a later version,
and what the version in force does not have yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from raft_agent import __version__
from raft_agent.api.host import Applied, Failure, Outcome
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.node import Node
from raft_agent.machine.commands import Command, RaiseVersion
from raft_agent.machine.machine import Machine
from raft_agent.machine.upgrade import Ask, Raise, Upgrade
from raft_agent.runtime.proposals import Proposals
from raft_agent.storage.store import Store
from raft_agent.transport.handshake import Hello, Refused
from raft_agent.transport.transport import Transport
from raft_agent.versions import Versions, advise, other_version

log = logging.getLogger("raft.runtime")

# Members come up in seconds and versions rise once in months; each look wakes an idle process up.
_LOOK_EVERY_S = 1.0
_LOOK_AGAIN_S = 0.25
_RAISE_AGAIN_S = 2.0


class VersionKeeper:
    """`tell(kind, **facts)` puts an event into the log."""

    def __init__(
        self,
        *,
        node: Node,
        machine: Machine,
        store: Store,
        transport: Transport,
        proposals: Proposals,
        loop: asyncio.AbstractEventLoop,
        tell: Callable[..., None],
    ) -> None:
        self._node = node
        self._machine = machine
        self._store = store
        self._transport = transport
        self._proposals = proposals
        self._loop = loop
        self._tell = tell
        self._promised = store.recovered.promised_version
        self._shown = machine.version
        self._promising: set[int] = set()
        self._upgrade: Upgrade | None = None
        self._is_raising = False
        self._timer: asyncio.TimerHandle | None = None
        self._say()
        self._promise(machine.version, lambda: None)

    @property
    def in_force(self) -> int:
        """The cluster version in force as far as this node has applied the log; 0: no cluster."""
        return self._machine.version if self._node.configuration is not None else 0

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _say(self) -> None:
        self._transport.set_versions(in_force=self._machine.version, promised=self._promised)

    # --- what happens

    def role(self, leads: bool) -> None:
        """Whether this node leads from now on."""
        if leads and self._upgrade is None:
            self._upgrade = Upgrade()
            self._is_raising = False
            self._arm()
        elif not leads and self._upgrade is not None:
            self._upgrade = None
            self.close()

    def applied(self) -> None:
        """A batch, or a snapshot, has become the machine's state."""
        version = self._machine.version
        if version != self._shown:
            self._shown = version
            self._say()
            self._tell("version_raised", version=version)
            # Who began with a backup, or with a copy of older data, has not promised it yet.
            self._promise(version, lambda: None)

    def admit(self, hello: Hello) -> None:
        """A node that belongs to no cluster yet promises what the members that dial it have
        promised, before it takes anything from them. Blocks for a moment then, once. Raises Refused
        when it does not know that version, or can't note it."""
        if self._node.configuration is not None or not hello.cluster_id:
            return
        version, known = hello.promised, self._machine.versions
        if version <= self._promised:
            return
        if version not in known:
            what = other_version(f"what the cluster of {hello.name!r} may hold", version, known)
            raise Refused("version", f"{what}. {advise(version, known)}")
        try:
            self._store.save_promise(version)
        except OSError as error:
            raise Refused("version", f"the cluster's version can't be noted: {error}") from None
        self._has_promised(version)

    # --- promises

    def asked(self, sender: int, version: int) -> None:
        """A leader wants this member's promise."""
        if self._node.state.membership.member(sender) is not None:
            self._promise(version, lambda: self._transport.promise_version(sender, version))

    def answered(self, sender: int, version: int) -> None:
        """A member has promised."""
        if self._upgrade is not None:
            self._upgrade.promised(sender, version)
            # Not now: what is decided may go into the log only where no event of the core waits.
            self._loop.call_soon(self._look)

    def _promise(self, version: int, then: Callable[[], None]) -> None:
        if version <= self._promised:
            then()
        elif version in self._machine.versions and version not in self._promising:
            self._promising.add(version)
            future = self._loop.run_in_executor(None, self._store.save_promise, version)
            future.add_done_callback(lambda done: self._was_saved(version, done, then))

    def _was_saved(
        self, version: int, done: asyncio.Future[None], then: Callable[[], None]
    ) -> None:
        self._promising.discard(version)
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            log.warning("version %d can't be promised: %s", version, error)
            return
        self._has_promised(version)
        then()

    def _has_promised(self, version: int) -> None:
        self._promised = max(version, self._promised)
        self._say()
        self._tell("version_promised", version=version)

    # --- the leader

    def _arm(self, delay_s: float = _LOOK_AGAIN_S) -> None:
        self._timer = self._loop.call_later(delay_s, self._look_again)

    def _look_again(self) -> None:
        self._arm(_LOOK_AGAIN_S if self._look() else _LOOK_EVERY_S)

    def _look(self) -> bool:
        """Whether there is something to be done. Nothing else waits for the core here, so the
        members that are counted are those of the log that RaiseVersion goes into."""
        upgrade, configuration = self._upgrade, self._node.configuration
        if upgrade is None or configuration is None or self._is_raising:
            return self._is_raising
        own_id = self._node.state.member_id
        known = {**self._transport.known_versions(), own_id: self._machine.versions}
        members = [member.id for member in configuration.members]
        step = upgrade.next_step(members, known, self._machine.version)
        if isinstance(step, Ask):
            self._ask(upgrade, step)
        elif isinstance(step, Raise):
            self._is_raising = True
            self._proposals.add_at_once([RaiseVersion(step.version)], self._was_raised)
        return step is not None

    def _ask(self, upgrade: Upgrade, step: Ask) -> None:
        own_id = self._node.state.member_id
        for member in step.members:
            if member == own_id:
                self._promise(step.version, lambda: upgrade.promised(own_id, step.version))
            else:
                self._transport.ask_version(member, step.version)

    def _was_raised(self, outcome: Outcome) -> None:
        # The version is in force by now, or it is tried again.
        self._loop.call_later(_RAISE_AGAIN_S, self._may_raise_again)
        if not isinstance(outcome, Applied):
            log.info("the version was not raised: %s", outcome.error)

    def _may_raise_again(self) -> None:
        self._is_raising = False

    # --- what the version in force does not have

    def problem(self, commands: Iterable[Command]) -> Failure | None:
        """Why these commands must not come into the log yet; None when they may."""
        needed = self._machine.vocabulary.needed(commands)
        if needed <= self._machine.version:
            return None
        return Failure(
            ErrorCode.NOT_IN_THIS_VERSION,
            f"This needs version {needed} of the cluster, and version {self._machine.version} is "
            f"in force until all members know {needed}{self._who_lacks(needed)}",
            "See what each member knows: raftctl member list",
        )

    def _who_lacks(self, version: int) -> str:
        configuration = self._node.configuration
        known = self._transport.known_versions()
        names = sorted(
            member.name
            for member in (configuration.members if configuration is not None else ())
            if member.id != self._node.state.member_id
            and (member.id not in known or known[member.id].newest < version)
        )
        return f": {', '.join(names)}" if names else ""

    def joiner_problem(self, hello: Hello) -> Failure | None:
        """Why whoever answers with this hello can't become a member; None when it can: it knows the
        version in force, and has promised what this node has when it heard of that."""
        in_force = self._machine.version
        if hello.oldest <= in_force and self._promised <= hello.promised:
            return None
        if hello.oldest <= in_force and self._promised <= hello.newest:
            return Failure(
                ErrorCode.CHANGE_PENDING,
                f"The cluster's version is about to be raised, and {hello.name} has not noted that",
                "Ask again",
            )
        needed = in_force if hello.oldest > in_force else self._promised
        program = f"raft-agent {hello.program}" if hello.program else "a raft-agent"
        return Failure(
            ErrorCode.REFUSED,
            f"{hello.name} runs {program}, which knows {hello.versions}, and this cluster needs "
            f"version {needed}",
            f"Install a raft-agent on {hello.name} that knows version {needed}, for example "
            f"{__version__} like here, and ask again",
        )

    def agent_of(self, member_id: int) -> tuple[str, Versions | None]:
        """Which raft-agent a member runs and what it knows; ("", None) while nobody has said."""
        if member_id == self._node.state.member_id:
            return __version__, self._machine.versions
        return self._transport.agent_of(member_id)
