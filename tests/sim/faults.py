"""What goes wrong, when and where."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from raft_agent.storage.errors import StorageError
from tests.sim.network import Link

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.process import Process


class Faults:
    """One fault after the other, at random times, until `end`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._rng = cluster.rng("faults")
        self._has_ended = False
        self._inject: dict[str, Callable[[], None]] = {
            "crash": self._crash_one,
            "crash_mid_step": self._crash_mid_step,
            "crash_while_writing": self._crash_while_writing,
            "crash_all": self._crash_all,
            "pause": self._pause,
            "partition": self._partition,
            "isolate_leader": self._isolate_leader,
            "one_way": self._one_way,
            "partial_partition": self._partial_partition,
            "clog": self._clog,
            "lossy": self._lossy,
            "slow_disk": self._slow_disk,
            "fsync_fails": self._fsync_fails,
            "disk_full": self._disk_full,
            "damage": self._damage,
            "damage_snapshot": self._damage_snapshot,
            "wipe": self._wipe,
            "transfer": self._transfer,
            "burst": self._burst,
            "flip_state": self._flip_state,
            "kill_while_it_exports": self._kill_while_it_exports,
            "map_refused": self._map_refused,
        }

    # --- begin and end

    def begin(self) -> None:
        if self._cluster.options.faults:
            self._next()

    def _next(self) -> None:
        delay_us = self._rng.expovariate(1.0) * self._cluster.options.fault_interval_us
        self._cluster.clock.after(int(delay_us), self._tick)

    def _tick(self) -> None:
        if self._has_ended:
            return
        self._next()
        if self._cluster.options.calm_start and not self._cluster.checks.cluster_id:
            return
        fault = self._rng.choice(self._cluster.options.faults)
        self._inject[fault]()

    def end(self) -> None:
        """Make everything well, and start what is down."""
        self._has_ended = True
        cluster = self._cluster
        cluster.network.heal()
        for process in cluster.processes:
            disk = process.disk
            disk.is_full = disk.fsync_fails = False
            disk.slow_until_us = 0
            process.exports.kernel.refuses = 0.0
            process.crash_after = None
            process.crash_at_write = False
            if process.is_paused:
                process.resume()
            if process.node is None:
                self.start(process)

    def _tell(self, fault: str, what: str) -> None:
        self._cluster.seen[f"fault_{fault}"] += 1
        if not self._cluster.checks.cluster_id:
            self._cluster.seen[f"fault_{fault}_in_first_start"] += 1
        if self._cluster.tracer is not None:
            self._cluster.tracer.fault(f"{fault}: {what}")

    # --- processes

    def start_first(self, process: Process) -> None:
        if process.boots == 0:
            self.start(process)

    def start(self, process: Process) -> None:
        if process.node is None and process.disk.promised not in process.program.versions:
            self._cluster.installer.refused(process)
        elif process.node is None:
            self._cluster.seen["started"] += 1
            if self._cluster.tracer is not None:
                self._cluster.tracer.fault(f"{process.name} starts")
            process.start()

    def crash(self, process: Process, *, kill: bool | None = None, damage: bool = False) -> None:
        """End a process; it starts again after a while."""
        if process.node is None:
            return
        options = self._cluster.options
        if kill is None:
            kill = self._rng.random() < options.disk.kill
        if self._cluster.tracer is not None:
            how = "is killed" if kill else "loses power"
            self._cluster.tracer.fault(f"{process.name} {how}{', a bit turns' if damage else ''}")
        if not self._cluster.checks.cluster_id:
            self._cluster.seen["crash_in_first_start"] += 1
        try:
            process.crash(kill=kill, damage=damage)
        except StorageError as error:
            raise self._cluster.checks.violation(
                f"{process.name} refuses to start: {error}"
            ) from error
        self._cluster.clock.after(self._duration_us(1_000, 1_500_000), self._restart, process)

    def kill(self, process: Process, boot: int) -> None:
        """End this process, when it is still the one that was meant; its machine lives on."""
        if process.boots == boot:
            self.crash(process, kill=True)

    def _restart(self, process: Process) -> None:
        process.disk.is_full = process.disk.fsync_fails = False
        self.start(process)

    def disk_failed(self, process: Process) -> None:
        """The core has stopped; the host makes a new one when the disk is well again."""
        delay_us = 1_000 if self._has_ended else self._duration_us(10_000, 1_000_000)
        self._cluster.clock.after(delay_us, self._reopen, process, process.boots)

    def _reopen(self, process: Process, boot: int) -> None:
        if process.boots != boot or process.node is None:
            return
        if process.disk.is_full:
            self.disk_failed(process)
            return
        # After a failed fsync nobody knows which pages of the cache are on the medium.
        self.crash(process, kill=False)

    # --- choices

    def _duration_us(self, shortest_us: int, longest_us: int) -> int:
        """Short ones more often."""
        return shortest_us + int(self._rng.random() ** 2 * (longest_us - shortest_us))

    def _victim(self) -> Process | None:
        """The leader in every second case, because most can go wrong there."""
        running = [p for p in self._cluster.processes if p.node is not None]
        leader = self._leader()
        if leader is not None and self._rng.random() < 0.5:
            return leader
        return self._rng.choice(running) if running else None

    def _leader(self) -> Process | None:
        leader = self._cluster.leader()
        return leader if leader is not None and leader.node is not None else None

    # --- the faults

    def _crash_one(self) -> None:
        process = self._victim()
        if process is not None:
            self._tell("crash", process.name)
            self.crash(process)

    def _crash_mid_step(self) -> None:
        process = self._victim()
        if process is not None:
            process.crash_after = self._rng.randrange(12)
            self._tell("crash_mid_step", f"{process.name} after {process.crash_after} effects")

    def _crash_while_writing(self) -> None:
        process = self._victim()
        if process is not None:
            self._tell("crash_while_writing", process.name)
            process.crash_at_write = True

    def writes(self, process: Process, *, cuts: bool) -> None:
        """A process begins to write to its log, and may be meant to crash before it is done."""
        wanted = "crash_while_writing" in self._cluster.options.faults and not self._has_ended
        if not process.crash_at_write and not (cuts and wanted and self._rng.random() < 0.5):
            return
        process.crash_at_write = False
        disk = self._cluster.options.disk
        delay_us = int(self._rng.random() * (disk.fsync_us + disk.jitter_us))
        self._cluster.clock.after(delay_us, self._crash_that, process, process.boots)

    def _crash_that(self, process: Process, boot: int) -> None:
        if process.boots == boot and not self._has_ended:
            self.crash(process)

    def _crash_all(self) -> None:
        self._tell("crash_all", "power failure")
        for process in self._cluster.processes:
            self.crash(process, kill=False)

    def _pause(self) -> None:
        process = self._victim()
        if process is None or process.is_paused:
            return
        duration_us = self._duration_us(5_000, 2_000_000)
        self._tell("pause", f"{process.name} for {duration_us} us")
        process.pause()
        self._cluster.clock.after(duration_us, self._resume, process, process.boots)

    def _resume(self, process: Process, boot: int) -> None:
        if process.boots == boot and process.is_paused:
            if self._cluster.tracer is not None:
                self._cluster.tracer.fault(f"{process.name} goes on")
            process.resume()

    def _block(self, fault: str, links: list[Link]) -> None:
        if not links:
            return
        duration_us = self._duration_us(20_000, 3_000_000)
        text = " ".join(f"{a + 1}>{b + 1}" for a, b in links)
        self._tell(fault, f"{text} for {duration_us} us")
        self._cluster.network.block(links)
        self._cluster.clock.after(duration_us, self._unblock, links)

    def _unblock(self, links: list[Link]) -> None:
        self._cluster.network.unblock(links)

    def _between(self, some: set[int]) -> list[Link]:
        """Both directions of every pair of which exactly one is in `some`."""
        nodes = range(self._cluster.options.size)
        return [(a, b) for a in nodes for b in nodes if (a in some) != (b in some)]

    def _partition(self) -> None:
        nodes = list(range(self._cluster.options.size))
        self._rng.shuffle(nodes)
        self._block("partition", self._between(set(nodes[: self._rng.randrange(len(nodes))])))

    def _isolate_leader(self) -> None:
        leader = self._leader()
        if leader is not None:
            self._block("isolate_leader", self._between({leader.index}))
            # Clients that are on its side go on writing.
            self._cluster.oracle.burst(leader, self._rng.randrange(4))

    def _one_way(self) -> None:
        """All that one node says, or hears, or a single link of it."""
        process = self._victim()
        others = [p.index for p in self._cluster.processes if p is not process]
        if process is None or not others:
            return
        if self._rng.random() < 0.4:
            others = [self._rng.choice(others)]
        outgoing = self._rng.random() < 0.5
        a = process.index
        self._block("one_way", [(a, b) if outgoing else (b, a) for b in others])

    def _partial_partition(self) -> None:
        """Some pairs can't talk while both reach the rest, as at Cloudflare in November 2020."""
        nodes = range(self._cluster.options.size)
        pairs = [(a, b) for a in nodes for b in nodes if a < b and self._rng.random() < 0.3]
        links = [link for a, b in pairs for link in ((a, b), (b, a))]
        self._block("partial_partition", links)

    def _clog(self) -> None:
        nodes = range(self._cluster.options.size)
        links = [(a, b) for a in nodes for b in nodes if a != b and self._rng.random() < 0.2]
        duration_us = self._duration_us(20_000, 1_500_000)
        text = " ".join(f"{a + 1}>{b + 1}" for a, b in links)
        self._tell("clog", f"{text} for {duration_us} us")
        for link in links:
            self._cluster.network.clog(link, duration_us)

    def _lossy(self) -> None:
        network = self._cluster.network
        duration_us = self._duration_us(50_000, 1_000_000)
        self._tell("lossy", f"for {duration_us} us")
        network.set_trouble(0.3, 0.2, 0.2)
        self._cluster.clock.after(duration_us, network.calm)

    def _slow_disk(self) -> None:
        process = self._victim()
        if process is not None:
            duration_us = self._duration_us(50_000, 2_000_000)
            self._tell("slow_disk", f"{process.name} for {duration_us} us")
            process.disk.slow_until_us = self._cluster.clock.now_us + duration_us

    def _fsync_fails(self) -> None:
        process = self._victim()
        if process is not None:
            self._tell("fsync_fails", process.name)
            process.disk.fsync_fails = True

    def _disk_full(self) -> None:
        process = self._victim()
        if process is None:
            return
        duration_us = self._duration_us(20_000, 1_500_000)
        self._tell("disk_full", f"{process.name} for {duration_us} us")
        disk = process.disk
        disk.is_full = True
        self._cluster.clock.after(duration_us, setattr, disk, "is_full", False)

    def _damage(self) -> None:
        process = self._victim()
        if process is None or process.disk.damaged:
            return
        if self._cluster.options.snapshot_every and not process.disk.has_later_groups:
            return
        if self._cluster.survival.may_lose(process):
            self._tell("damage", process.name)
            self.crash(process, damage=True)

    def _damage_snapshot(self) -> None:
        """A bit of the newest snapshot turns, while the log goes on from the older one."""
        process = self._victim()
        if process is None or process.disk.forgets_its_log:
            return
        shelf, log = process.disk.shelf, process.disk.durable
        is_older_enough = len(shelf.kept) > 1 and shelf.kept[1].is_intact
        if is_older_enough and log.base_index <= shelf.older_index <= log.last_index:
            self._tell("damage_snapshot", process.name)
            shelf.damage_newest()
            if self._rng.random() < 0.5:
                self.crash(process)

    def _flip_state(self) -> None:
        process = self._victim()
        if process is not None and process.audits.flip():
            self._tell("flip_state", process.name)

    def _kill_while_it_exports(self) -> None:
        """Somewhere between two calls of the kernel."""
        process = self._victim()
        if process is not None:
            process.exports.kernel.dies_in = self._rng.randrange(8)
            self._tell("kill_while_it_exports", process.name)

    def _map_refused(self) -> None:
        """A machine has no memory for maps."""
        process = self._victim()
        if process is not None:
            duration_us = self._duration_us(10_000, 1_000_000)
            self._tell("map_refused", f"{process.name} for {duration_us} us")
            kernel = process.exports.kernel
            kernel.refuses = 0.3
            self._cluster.clock.after(duration_us, setattr, kernel, "refuses", 0.0)

    def _wipe(self) -> None:
        process = self._victim()
        if process is None or process.disk.damaged:
            return
        if self._cluster.survival.may_lose(process):
            self._tell("wipe", process.name)
            self.wipe(process)

    def wipe(self, process: Process) -> None:
        """The process ends and all that it had is gone."""
        self._cluster.survival.lose(process)
        self.crash(process)
        process.new_disk()

    def _transfer(self) -> None:
        leader = self._leader()
        if leader is None or leader.node is None:
            return
        target = self._rng.choice([0, *(p.member_id for p in self._cluster.processes)])
        self._tell("transfer", f"{leader.name} to {target:016x}")
        leader.run(leader.service.transfer, target)

    def _burst(self) -> None:
        process = self._victim()
        if process is not None:
            count = self._rng.choice((3, 10, 40))
            self._tell("burst", f"{count} requests for {process.name}")
            self._cluster.oracle.burst(process, count)
