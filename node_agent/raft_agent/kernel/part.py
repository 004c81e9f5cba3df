"""The kernel part as the agent has it: on or off, where, how well, and why.

Nothing here may keep the agent from running: what can't be had is said once, in a sentence, and the
agent goes on without.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from raft_agent.config import Ebpf
from raft_agent.consensus.types import LeaderStamp
from raft_agent.kernel import interfaces
from raft_agent.kernel.attachment import Attachment, Place
from raft_agent.kernel.selfcheck import Seen, SelfCheck
from raft_agent.kernel.tc import AttachError, Programs

log = logging.getLogger("raft.kernel")

OFF = "off"
ATTACHED = "attached"
BYPASSED = "attached-but-bypassed"
DEGRADED = "degraded"
STARTING = "is starting"

_TICK_S = 1.0
# Names of peers may get other addresses without any word from the cluster.
_RESOLVE_TICKS = 30
# The filter drops nobody once the agent has been silent for so long: a dead one locks nobody out.
_DEAD_MANS_S = 5.0
_EVENTS = {
    ATTACHED: "kernel_attached",
    BYPASSED: "kernel_bypassed",
    DEGRADED: "kernel_degraded",
    OFF: "kernel_detached",
}

End = tuple[str, int]


class Connection(msgspec.Struct, frozen=True):
    """A TCP connection with a member: the IP address and port of both ends, and how many bytes of
    it the system has received (None: it does not tell)."""

    peer: int
    local: End
    remote: End
    received_bytes: int | None


class Stamp(msgspec.Struct, frozen=True):
    """The newest AppendEntries or heartbeat header that came on a connection."""

    time_ns: int
    sender: int
    term: int


class Fault(msgspec.Struct, frozen=True):
    """Packets to lose: from (`is_ingress`) or to the IP address `host`, until a moment of
    CLOCK_MONOTONIC."""

    host: str
    is_ingress: bool
    per_mille: int
    until_ns: int


class Unavailable(Exception):  # noqa: N818
    """What is missing for the kernel part, and how to get it, in one line."""


class Sight(Protocol):
    """The loaded program and its maps."""

    programs: Programs

    def received_bytes(self, connection: Connection) -> int:
        """How many bytes of the TCP stream it saw come in; 0 when it never saw the connection."""

    def last_append(self, connection: Connection) -> Stamp | None:
        """None when there was none, or when it has lost its place in the stream."""

    def allow(self, networks: Iterable[str]) -> None:
        """Let new connections in from these addresses and networks, and from no others."""

    def faults(self) -> list[Fault]:
        """Those that are in force."""

    def set_fault(self, fault: Fault) -> None: ...

    def heal(self, host: str) -> None:
        """End the faults of one IP address, or with "" all."""

    def set_firewall(self, mode: str, until_ns: int) -> None:
        """`mode` "off", "audit" or "enforce"; drops nobody behind `until_ns` (CLOCK_MONOTONIC)."""

    def start(self, loop: asyncio.AbstractEventLoop, tell: Tell) -> None:
        """Pass on what the program reports."""

    def close(self) -> None: ...


class Tell(Protocol):
    def __call__(self, kind: str, **facts: int | str) -> None: ...


class Surroundings(Protocol):
    """What the owner of the kernel part knows."""

    def connections(self) -> list[Connection]:
        """With members, each once."""

    def peer_hosts(self) -> list[str]:
        """The hosts of all other members' addresses, the ones that leave or join included."""

    def peer_name(self, peer: int) -> str: ...


class KernelPart:
    """`load` loads the program, in a thread; it raises Unavailable."""

    def __init__(
        self,
        settings: Ebpf,
        port: int,
        surroundings: Surroundings,
        tell: Tell,
        load: Callable[[], Sight],
    ) -> None:
        self._settings = settings
        self._port = port
        self._surroundings = surroundings
        self._tell = tell
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._check = SelfCheck()
        self._hidden: set[int] = set()
        self._place = Place(problem=STARTING)
        self._missing = ""
        self._networks: frozenset[str] = frozenset()
        self._attachment: Attachment | None = None
        self._monitor: interfaces.LinkMonitor | None = None
        self._task: asyncio.Task[None] | None = None
        self._look_again = asyncio.Event()
        self._told: tuple[str, str, list[str]] = ("", "", [])
        self.sight: Sight | None = None
        self.firewall = "off"

    # --- life

    def start(self) -> None:
        """Load and attach in the background."""
        self._task = self._loop.create_task(self._run())

    async def stop(self) -> None:
        """Detach and unload."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._monitor is not None:
            self._monitor.close()
        sight, self.sight = self.sight, None
        if self._attachment is not None:
            try:
                await self._attachment.remove()
            except (AttachError, OSError) as error:
                log.warning("the filters stay on the interface: %s", error)
        if sight is not None:
            sight.close()

    def look_again(self) -> None:
        """Members, links or routes have changed."""
        self._look_again.set()

    async def _run(self) -> None:
        try:
            self.sight = await asyncio.to_thread(self._load)
        except Unavailable as error:
            self._missing = str(error)
            self._say_state()
            return
        try:
            self._attachment = Attachment(self._settings.interface, self._port, self.sight.programs)
            self._monitor = interfaces.LinkMonitor(self._loop, self.look_again)
            self.sight.start(self._loop, self._tell)
            await self._look_after()
        except Exception as error:
            log.exception("the kernel part gives up")
            self._missing = f"gave up after an error: {error!r}; please report it"
            self._say_state()

    async def _look_after(self) -> None:
        ticks = 0
        self._look_again.set()
        while True:
            if self._look_again.is_set() or ticks % _RESOLVE_TICKS == 0:
                self._look_again.clear()
                await self._update()
            self._tick()
            ticks += 1
            try:
                await asyncio.wait_for(self._look_again.wait(), _TICK_S)
            except TimeoutError:
                continue

    async def _update(self) -> None:
        if self._attachment is None:
            return
        hosts = await interfaces.addresses_of(self._surroundings.peer_hosts())
        before = self._place.interfaces
        try:
            self._place = await self._attachment.update(hosts)
        except (AttachError, OSError) as error:
            self._place = msgspec.structs.replace(self._place, problem=str(error))
        if self._place.interfaces != before:
            self._check.forget()
            self._hidden = set()
        self._networks = frozenset(
            (*hosts, *self._place.local_addresses, *self._settings.firewall_allow)
        )

    def _tick(self) -> None:
        sight = self.sight
        if sight is None:
            return
        seen = [
            Seen((one.local, one.remote), one.peer, one.received_bytes, sight.received_bytes(one))
            for one in self._surroundings.connections()
            if one.received_bytes is not None and self._port in (one.local[1], one.remote[1])
        ]
        if self._place.interfaces:
            self._hidden = self._check.look(seen)
        self._guard(sight)
        self._say_state()

    def _guard(self, sight: Sight) -> None:
        """What is hidden from the program would be let in or locked out by chance."""
        wanted = self._settings.firewall
        mode = wanted if self.state == ATTACHED else "off"
        if wanted != "off":
            sight.allow(self._networks)
            until_ns = time.monotonic_ns() + int(_DEAD_MANS_S * 1e9)
            sight.set_firewall(mode, until_ns)
        self.firewall = mode

    # --- what it says

    @property
    def state(self) -> str:
        if self._missing or self._place.problem:
            return DEGRADED
        return BYPASSED if self._hidden else ATTACHED

    @property
    def reason(self) -> str:
        text = self._missing or self._place.problem
        if not text and self._hidden:
            text = self._why_hidden()
        refused = self.firewall != self._settings.firewall
        if refused and self.state != ATTACHED:
            text += f"; the firewall is off instead of {self._settings.firewall}"
        return text

    @property
    def interfaces(self) -> list[str]:
        return list(self._place.interfaces)

    @property
    def in_front(self) -> list[str]:
        """Who sees the packets before the program does."""
        return [f"{who} on {name}" for name, all_ in self._place.in_front.items() for who in all_]

    def _why_hidden(self) -> str:
        names = ", ".join(sorted(map(self._surroundings.peer_name, self._hidden)))
        text = f"packets from {names} arrive, but the program does not see them"
        if self.in_front:
            return f"{text}: {', '.join(self.in_front)} runs before it"
        if self._settings.interface != interfaces.AUTO:
            return f'{text}: do they come over another interface? ebpf.interface = "auto" finds it'
        return f"{text}: something on {', '.join(self.interfaces)} takes them"

    def _say_state(self) -> None:
        state, reason = self.state, self.reason
        if (state, reason, self.interfaces) == self._told:
            return
        self._told = (state, reason, self.interfaces)
        self._tell(
            _EVENTS[state], reason=reason, interfaces=", ".join(self.interfaces) or "no interface"
        )

    def leader_stamp(self, term: int) -> LeaderStamp | None:
        """The newest header of a leader of `term` or later, among those that came over connections
        which their senders had dialled; None when the program can't tell."""
        sight = self.sight
        if sight is None or self._hidden:
            return None
        stamps = [
            stamp
            for one in self._surroundings.connections()
            if one.local[1] == self._port and (stamp := sight.last_append(one)) is not None
            # The header is open to whoever is on the way; the handshake has said who is there.
            if stamp.sender == one.peer and stamp.term >= term
        ]
        if not stamps:
            return None
        newest = max(stamps, key=lambda stamp: (stamp.term, stamp.time_ns))
        silence_us = max(time.monotonic_ns() - newest.time_ns, 0) // 1000
        return LeaderStamp(silence_us, newest.sender, newest.term)
