"""The load generator: a closed loop of clients on the agent's Unix socket, or at its endpoint.

Each client is a connection with a fixed number of requests in flight. A request's latency counts
from when its slot was free to send it, so time that a busy generator or a full socket makes it wait
is part of it. With a rate it is no closed loop: see `bench_pace`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import msgspec

from raft_agent import wire
from raft_agent.api import protocol
from raftctl.bench_pace import Pacer
from raftctl.bench_requests import Plan, Requests
from raftctl.bench_stats import COARSE_BUCKETS, COARSE_SHIFT, FINE_BUCKETS, Latencies, Tally
from raftctl.errors import NOT_REACHABLE, CommandError

if TYPE_CHECKING:
    from raft_agent.api.endpoint import Endpoint

_HEADER_SIZE = wire.HEADER_SIZE
# One reply to slot 1 without an error: the most frequent body by far when pipeline is 1.
_ONE_DONE = b"\x91\x93\x01\xc0"
_ONE_DONE_AT = slice(_HEADER_SIZE, _HEADER_SIZE + len(_ONE_DONE))
_LENGTH_AT = slice(8, 12)
_FIRST = (1,)
# Of `Client.starts` at pipeline 1: slots count from 1.
_ONE_SLOT = 2
_REPLY_TYPES = frozenset({int(wire.FrameType.CLIENT_REPLY)})
_CONNECT_WAVE = 64
_RETRY_S = 0.01
_RECONNECT_S = 0.1
_SWEEP_S = 0.25

_clock = time.perf_counter
_decode_replies = msgspec.msgpack.Decoder(list[protocol.Reply]).decode


class Load:
    """What the connections of one process share."""

    def __init__(self, plan: Plan, target: str | Endpoint, seed: int) -> None:
        self.plan = plan
        self.target = target
        self.requests = Requests(plan, seed)
        self.tally = Tally()
        self.is_running = False
        self.interrupted = asyncio.Event()
        self.clients: list[Client] = []
        self.reconnects: set[asyncio.Task[None]] = set()
        self.pacer = Pacer(plan.rate) if plan.rate else None

    def count_error(self, code: str) -> None:
        if code == protocol.ErrorCode.UNKNOWN_OUTCOME:
            self.tally.unknown += 1
        else:
            self.tally.errors[code] = self.tally.errors.get(code, 0) + 1

    def count_lost(self, count: int, code: str) -> None:
        """Requests without an answer: writes may still happen, reads have just failed."""
        if self.plan.writes:
            self.tally.unknown += count
        elif count:
            self.tally.errors[code] = self.tally.errors.get(code, 0) + count

    async def connect_all(self) -> None:
        """Every client connected, in waves that the agent's listen queue can take."""
        for first in range(0, self.plan.clients, _CONNECT_WAVE):
            wave = min(_CONNECT_WAVE, self.plan.clients - first)
            await asyncio.gather(*(self.connect() for _ in range(wave)))

    async def connect(self) -> None:
        """One more client. Raises CommandError when the agent doesn't take it in time."""
        if isinstance(self.target, str):
            await self._connect_here(self.target)
            return
        try:
            async with asyncio.timeout(self.plan.timeout_s):
                await self.target.connect(self._client)
        except OSError as failure:
            text = failure.strerror or str(failure) or "no answer in time"
            raise CommandError(
                f"{self.target}: {text}", NOT_REACHABLE, "Does it answer? raftctl doctor"
            ) from failure

    async def _connect_here(self, path: str) -> None:
        loop = asyncio.get_running_loop()
        deadline = _clock() + self.plan.timeout_s
        while True:
            sock = _new_socket()
            try:
                sock.connect(path)
                break
            except (BlockingIOError, ConnectionRefusedError) as full:
                # unix(7): a full listen queue answers EAGAIN at once; there is nothing to wait on.
                sock.close()
                if _clock() > deadline:
                    raise CommandError(
                        f"The agent took {len(self.clients)} of {self.plan.clients} connections",
                        NOT_REACHABLE,
                        "Is its limit of open files high enough? raftctl doctor",
                    ) from full
                await asyncio.sleep(_RETRY_S)
            except OSError as failure:
                sock.close()
                raise CommandError(
                    f"{path}: {failure.strerror}", NOT_REACHABLE, "Does it answer? raftctl doctor"
                ) from failure
        await loop.create_unix_connection(self._client, sock=sock)

    def _client(self) -> Client:
        return Client(self) if self.pacer is None else PacedClient(self, self.pacer)

    def reconnect(self) -> None:
        async def later() -> None:
            while self.is_running:
                await asyncio.sleep(_RECONNECT_S)
                try:
                    await self.connect()
                except CommandError:
                    continue
                return

        task = asyncio.get_running_loop().create_task(later())
        self.reconnects.add(task)
        task.add_done_callback(self.reconnects.discard)

    async def _pass(self, seconds: float) -> None:
        """Returns after that time, or at once when the run is interrupted."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.interrupted.wait(), seconds)

    async def run(self, started: asyncio.Future[None]) -> Tally:
        """Load after `started`: warm-up, then the measured time, then what is still in flight. When
        it is interrupted, the measured time ends there.
        """
        loop = asyncio.get_running_loop()
        plan = self.plan
        await started
        self.is_running = True
        for client in self.clients:
            client.issue_all()
        if self.pacer is not None:
            self.pacer.begin()
        sweeper = loop.create_task(self._sweep())
        await self._pass(plan.warmup_s)
        in_warm_up = self.interrupted.is_set()
        self.tally.latencies = Latencies()
        begin, cpu_begin = _clock(), time.process_time()
        await self._pass(plan.duration_s)
        measured = self.tally.latencies
        end, cpu_end = _clock(), time.process_time()
        self.tally.latencies = Latencies()  # answers that come later are not of the measured time
        self.is_running = False
        if self.pacer is not None:
            self.tally.unsent = self.pacer.end()
        await self._drain(end + plan.timeout_s)
        for task in (sweeper, *self.reconnects):
            task.cancel()
        await asyncio.gather(sweeper, *self.reconnects, return_exceptions=True)
        tally = self.tally
        tally.interrupted = self.interrupted.is_set()
        if not in_warm_up:
            tally.latencies = measured
            tally.window_s = end - begin
            tally.cpu_s = cpu_end - cpu_begin
        else:
            tally.latencies = Latencies()
        return tally

    async def _drain(self, deadline: float) -> None:
        while any(client.in_flight for client in self.clients) and _clock() < deadline:
            await asyncio.sleep(_RETRY_S)
        for client in list(self.clients):
            client.give_up("timed_out")

    async def _sweep(self) -> None:
        """Connections whose oldest request is overdue are given up, so that a late answer can't be
        taken for another request's.
        """
        while True:
            await asyncio.sleep(_SWEEP_S)
            overdue = _clock() - self.plan.timeout_s
            for client in list(self.clients):
                if client.is_overdue(overdue):
                    client.give_up("timed_out")


class Client(asyncio.Protocol):
    """One connection; `starts[slot]` is when the slot's request was due, 0.0 when it is idle."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.starts = [0.0] * (load.plan.pipeline + 1)
        self.reader = wire.FrameReader(_REPLY_TYPES, checksum_optional=True)
        self.next_single = load.requests.next_single
        self.transport: asyncio.Transport
        self.write: Callable[[bytes], object]

    @property
    def in_flight(self) -> int:
        return sum(1 for start in self.starts if start)

    def is_overdue(self, before: float) -> bool:
        return any(0.0 < start < before for start in self.starts)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have asyncio's methods, but not its classes.
        self.transport = cast("asyncio.Transport", transport)
        self.write = self.transport.write
        self.load.clients.append(self)
        if self.load.is_running:
            self.issue_all()

    def connection_lost(self, _exc: Exception | None) -> None:
        if self in self.load.clients:
            self.give_up("connection_lost")

    def give_up(self, code: str) -> None:
        """The answers of what is in flight won't be waited for."""
        self.load.clients.remove(self)
        self.load.count_lost(self.in_flight, code)
        self.starts = [0.0] * len(self.starts)
        self.transport.abort()
        if self.load.is_running:
            self.load.reconnect()

    def issue_all(self) -> None:
        self.issue(list(range(1, len(self.starts))), _clock())

    def issue(self, slots: list[int], now: float) -> None:
        if not self.load.is_running or self.transport.is_closing():
            return
        starts = self.starts
        for slot in slots:
            starts[slot] = now
        for frame in self.load.requests.frames(slots):
            self.write(frame)

    def data_received(self, data: bytes) -> None:
        now = _clock()
        if (
            data[_ONE_DONE_AT] == _ONE_DONE
            and len(data) == _HEADER_SIZE + int.from_bytes(data[_LENGTH_AT], "little")
            and not self.reader.pending_bytes
        ):
            # By hand and inline: at pipeline 1 this is all that a request costs.
            micros = int((now - self.starts[1]) * 1e6)
            latencies = self.load.tally.latencies
            if micros < FINE_BUCKETS:
                latencies.fine[micros] += 1
            else:
                latencies.coarse[min(micros >> COARSE_SHIFT, COARSE_BUCKETS - 1)] += 1
            self.first_is_free(now)
            return
        self._frames_received(data, now)

    def first_is_free(self, now: float) -> None:
        """The request in slot 1 was answered."""
        if self.load.is_running:
            self.starts[1] = now
            self.write(self.next_single())
        else:
            self.starts[1] = 0.0

    def _frames_received(self, data: bytes, now: float) -> None:
        load = self.load
        starts = self.starts
        record = load.tally.latencies.record
        free: list[int] = []
        refused: list[int] = []
        try:
            frames = self.reader.feed(data)
        except wire.FrameError:
            self.give_up("bad_frame")
            return
        for frame in frames:
            for reply in _decode_replies(frame.body):
                slot = reply.id
                if reply.error is None:
                    record(now - starts[slot])
                    free.append(slot)
                else:
                    load.count_error(reply.error.code)
                    refused.append(slot)
                starts[slot] = 0.0
        if free:
            self.issue(free, now)
        if refused:
            # An agent that refuses must not be asked again and again at full speed.
            asyncio.get_running_loop().call_later(_RETRY_S, self._issue_later, refused)

    def _issue_later(self, slots: list[int]) -> None:
        self.issue(slots, _clock())


class PacedClient(Client):
    """One connection whose free slots wait until a request is due."""

    def __init__(self, load: Load, pacer: Pacer) -> None:
        super().__init__(load)
        self._pacer = pacer
        self.is_gone = False

    def issue(self, slots: list[int], now: float) -> None:  # noqa: ARG002
        if self.load.is_running and not self.is_gone:
            self._pacer.are_free(self, slots)

    def first_is_free(self, now: float) -> None:  # noqa: ARG002
        self.starts[1] = 0.0
        if self.load.is_running and not self.is_gone:
            self._pacer.are_free(self, _FIRST)

    def send(self, slots: list[tuple[int, float]]) -> None:
        for slot, due in slots:
            self.starts[slot] = due
        if len(self.starts) == _ONE_SLOT:
            self.write(self.next_single())
            return
        for frame in self.load.requests.frames([slot for slot, _ in slots]):
            self.write(frame)

    def give_up(self, code: str) -> None:
        self.is_gone = True
        super().give_up(code)


def _new_socket() -> socket.socket:
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as failure:
        raise CommandError(
            f"Can't open one more connection: {failure.strerror}",
            hint="Raise the limit of open files: ulimit -n 65536",
        ) from failure
    sock.setblocking(False)
    return sock


def run_load(
    plan: Plan, target: str | Endpoint, seed: int, ready: Callable[[], None], go_fd: int | None
) -> Tally:
    """Connects, calls `ready`, waits until `go_fd` (if any) is at its end, then runs the load."""
    try:
        import uvloop  # noqa: PLC0415

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    except ImportError:
        loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(_run(plan, target, seed, ready, go_fd))
    finally:
        loop.close()


def _start(started: asyncio.Future[None]) -> None:
    if not started.done():
        started.set_result(None)


async def _run(
    plan: Plan, target: str | Endpoint, seed: int, ready: Callable[[], None], go_fd: int | None
) -> Tally:
    loop = asyncio.get_running_loop()
    load = Load(plan, target, seed)
    await load.connect_all()
    started: asyncio.Future[None] = loop.create_future()
    loop.add_signal_handler(signal.SIGINT, load.interrupted.set)
    ready()
    if go_fd is None:
        started.set_result(None)
    else:
        loop.add_reader(go_fd, _start, started)
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing in the hot path makes cycles, and a collection would look like latency
    try:
        return await load.run(started)
    finally:
        gc.enable()
        gc.unfreeze()
        loop.remove_signal_handler(signal.SIGINT)
        if go_fd is not None:
            loop.remove_reader(go_fd)
