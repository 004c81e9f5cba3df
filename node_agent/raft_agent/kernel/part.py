"""The kernel part as the agent has it: on or off, where, how well, and why.

Nothing here may keep the agent from running: what can't be had is said once, in a sentence, and the
agent goes on without.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Protocol

import msgspec

from raft_agent.config import Ebpf
from raft_agent.consensus.types import LeaderStamp
from raft_agent.kernel import interfaces
from raft_agent.kernel.attachment import Attachment, Place
from raft_agent.kernel.counters import Log2Histogram
from raft_agent.kernel.interfaces import Hosts
from raft_agent.kernel.lag import LagMeter
from raft_agent.kernel.libbpf import KernelUnavailable
from raft_agent.kernel.news import News, Tell
from raft_agent.kernel.selfcheck import Seen, SelfCheck
from raft_agent.kernel.sight import Connection, Sight
from raft_agent.kernel.tc import AttachError

log = logging.getLogger("raft.kernel")

OFF = "off"
ATTACHED = "attached"
BYPASSED = "attached-but-bypassed"
DEGRADED = "degraded"
STARTING = "is starting"

_TICK_S = 1.0
# Names of peers may get other addresses without any word from the cluster.
_RESOLVE_S = 30.0
# The filter drops nobody once the agent has been silent for so long: a dead one locks nobody out.
_DEAD_MANS_MS = 5000
# The program forgets when a request came once it was answered, so a lag is measured at the moment
# at which the frame is handled. That takes a look into a map, so only a few frames are measured.
_LAG_S = 0.05
_EVENTS = {
    ATTACHED: "kernel_attached",
    BYPASSED: "kernel_bypassed",
    DEGRADED: "kernel_degraded",
    OFF: "kernel_detached",
}


class Surroundings(Protocol):
    """What the owner of the kernel part knows."""

    def connections(self) -> list[Connection]:
        """With members, each once."""

    def peer_addresses(self) -> list[tuple[str, int]]:
        """(host, port) of all other members, those that leave or join included."""

    def peer_name(self, peer: int) -> str: ...


class KernelPart:
    """`load` loads the program, in a thread; it raises KernelUnavailable."""

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
        self._news: News | None = None
        self._lag_is_due = False
        self._lag_timer: asyncio.TimerHandle | None = None
        self._lags: defaultdict[int, LagMeter] = defaultdict(LagMeter)
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
        if self._lag_timer is not None:
            self._lag_timer.cancel()
        for watch in (self._monitor, self._news):
            if watch is not None:
                watch.close()
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
        except KernelUnavailable as error:
            self._missing = str(error)
            self._say_state()
            return
        try:
            sight = self.sight
            attachment = Attachment(self._settings.interface, self._port, sight.programs)
            self._attachment = attachment
            self._monitor = interfaces.LinkMonitor(self._loop, self.look_again)
            self._news = News(self._loop, sight.events, self._tell)
            self._lag_falls_due()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_place(sight, attachment))
                tasks.create_task(self._keep_watch(sight))
        except Exception as error:
            # Whatever it is: the cluster is as correct without this part.
            log.exception("the kernel part gives up")
            self._missing = f"gave up, see the log ({error}); please report it"
            self._say_state()

    async def _keep_place(self, sight: Sight, attachment: Attachment) -> None:
        """Follow members, links and routes. Names may take long to resolve, so this waits apart."""
        hosts = Hosts()
        while True:
            self._look_again.clear()
            peers = self._surroundings.peer_addresses()
            sight.count_ports({port for _, port in peers} - {self._port})
            await hosts.resolve(host for host, _ in peers)
            before = self._place.interfaces
            try:
                self._place = await attachment.update(hosts.addresses)
            except (AttachError, OSError) as error:
                self._place = msgspec.structs.replace(self._place, problem=str(error))
            if self._place.interfaces != before:
                self._check.forget()
                self._hidden = set()
            own = self._place.local_addresses
            self._networks = frozenset((*hosts.addresses, *own, *self._settings.firewall_allow))
            self._tick(sight)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look_again.wait(), _RESOLVE_S)

    async def _keep_watch(self, sight: Sight) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._tick(sight)
            if self._news is not None:
                self._news.second_passed()

    def _tick(self, sight: Sight) -> None:
        if self._place.problem == STARTING:
            return
        seen = []
        for one in self._surroundings.connections():
            if one.received_bytes is not None:
                flow = sight.flow(one)
                counted = 0 if flow is None else flow.ingress.payload_bytes
                seen.append(Seen((one.local, one.remote), one.peer, one.received_bytes, counted))
        if self._place.interfaces:
            hidden = self._check.look(seen)
            if hidden != self._hidden:
                # Whoever put a program in front, the kernel told nobody.
                self._hidden = hidden
                self.look_again()
        self._guard(sight)
        self._say_state()

    def _guard(self, sight: Sight) -> None:
        """What is hidden from the program would be let in or locked out by chance."""
        wanted = self._settings.firewall
        mode = wanted if self.state == ATTACHED else "off"
        if wanted != "off":
            sight.guard(mode, self._networks, _DEAD_MANS_MS)
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

    # --- what it knows of frames

    def handled(self, peer: int, request_id: int) -> None:
        """The frame of `peer` with that request id is handled now, and not answered yet."""
        sight = self.sight
        if not self._lag_is_due or sight is None or not request_id:
            return
        self._lag_is_due = False
        lag = self._lags[peer]
        lag.handled(request_id)
        with contextlib.suppress(OSError):
            for one in self._surroundings.connections():
                if one.peer == peer:
                    sight.measure(lag, one)

    def _lag_falls_due(self) -> None:
        self._lag_is_due = True
        self._lag_timer = self._loop.call_later(_LAG_S, self._lag_falls_due)

    def lag(self, peer: int) -> Log2Histogram:
        """How long frames of this peer had waited in the kernel when they were handled."""
        return self._lags[peer].lag

    def leader_stamp(self, term: int) -> LeaderStamp | None:
        """The newest header of a leader of `term` or later, among those that came over connections
        which their senders had dialled; None when the program can't tell."""
        sight = self.sight
        if sight is None or self._hidden:
            return None
        stamps = []
        for one in self._surroundings.connections():
            if one.local[1] != self._port:
                continue
            try:
                stamp = sight.last_append(one)
            except OSError:
                continue
            # The header is open to whoever is on the way; the handshake has said who is there.
            if stamp is not None and stamp.sender == one.peer and stamp.term >= term:
                stamps.append(stamp)
        if not stamps:
            return None
        newest = max(stamps, key=lambda stamp: (stamp.term, stamp.time_ns))
        silence_us = max(time.monotonic_ns() - newest.time_ns, 0) // 1000
        return LeaderStamp(silence_us, newest.sender, newest.term)
