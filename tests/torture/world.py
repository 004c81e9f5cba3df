"""The machines of a run: agents in network namespaces of their own, and what they stand on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from raft_agent.api import protocol
from tests.e2e.agents import UNREACHABLE, Agent, wait_for
from tests.e2e.certified import use
from tests.kernel import harness, netns
from tests.torture import clocks
from tests.torture.clients.spec import Spec
from tests.torture.clocks import Clock
from tests.torture.disk import Disk, LossyDisk, PlainDisk, lossy_disks_missing
from tests.torture.network import Network
from tests.torture.papers import Papers

ROOT = Path(__file__).resolve().parents[2]
PORT = 5555
GUEST = "10.77.9.1"
# A machine that does other things besides lets processes wait for longer than the defaults bear.
PATIENT = (
    "heartbeat_interval_ms = 150\nelection_timeout_min_ms = 800\nelection_timeout_max_ms = 1600"
)


_CLIENTS_END_S = 90
_HELPER_ENDS_S = 5


@dataclass(frozen=True)
class Options:
    """How a run's cluster is made. `voters` found it; `spares` are machines without an agent.
    `source`: where the agents' code is, when it is not this checkout's. `timing` and `storage`: of
    raft.toml. `skewed`: clocks drift apart, as far as is declared; then nobody uses the kernel's
    part, whose clock does not drift along."""

    seed: int
    voters: int = 3
    spares: int = 2
    source: Path | None = None
    timing: str = PATIENT
    storage: str = "snapshot_entries = 2000"
    lossy: bool = True
    fsync_ms: int = 0
    skewed: bool = False
    pause_s: float = 0.05


class Node:
    """A machine: its namespace, its two addresses, its disk, its clock, and the agent on it.

    `place`: which of the addresses it uses. `in_use`: it has an agent with a data directory, and
    `lives` counts how often that began anew. `pins`: where its exported maps are.
    `held_by`: the strikes that have it in their hands. `may_end`: they may make its agent end.
    """

    def __init__(
        self,
        name: str,
        namespace: str,
        *,
        addresses: tuple[str, str],
        agent: Agent,
        disk: Disk,
        clock: Clock | None,
        pins: Path,
    ) -> None:
        self.name = name
        self.pins = pins
        self.namespace = namespace
        self.addresses = addresses
        self.agent = agent
        self.disk = disk
        self.clock = clock
        self.place = 0
        self.in_use = False
        self.has_program = clock is None or not clock.rate_ppm
        self.held_by: set[str] = set()
        self.may_end = False
        self.lives = 0

    @property
    def address(self) -> str:
        return f"{self.addresses[self.place]}:{PORT}"

    @property
    def is_running(self) -> bool:
        process = self.agent.process
        return process is not None and process.poll() is None

    def start(self) -> None:
        """Start its agent, at the address that it has now."""
        self.agent.options = ("--set", f"server.listen_addr={self.address}")
        self.in_use = True
        self.agent.start()

    def write_log(self, line: str) -> None:
        """Add a line to its agent's log: what follows is to be read otherwise."""
        with self.agent.log_path.open("ab") as log:
            log.write(f"\n{line}\n".encode())

    def kill(self) -> None:
        if self.is_running:
            self.agent.signal(signal.SIGCONT)
        self.agent.kill()

    def wipe(self) -> None:
        """Nothing of its data is left, and no agent: the machine is as new."""
        assert not self.is_running
        self.lives += 1
        shutil.rmtree(self.agent.data_dir, ignore_errors=True)
        self.in_use = False

    def reap(self) -> int | None:
        """The exit status of an agent that has ended by itself; None while it runs or is down."""
        process = self.agent.process
        if process is None or process.poll() is None:
            return None
        self.agent.process = None
        return process.returncode


class World:
    """All nodes, the network between them, and what can be asked about them."""

    def __init__(
        self,
        directory: Path,
        options: Options,
        *,
        nodes: list[Node],
        network: Network,
        papers: Papers,
        guest: str,
    ) -> None:
        self.directory = directory
        self.options = options
        self.nodes = nodes
        self.network = network
        self.papers = papers
        self.guest = guest
        self._helpers: list[subprocess.Popen[bytes]] = []

    def running(self) -> list[Node]:
        return [node for node in self.nodes if node.is_running]

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def statuses(self) -> dict[str, protocol.StatusResult]:
        """Of all agents that answer at once."""
        found = {}
        for node in self.running():
            try:
                answer = node.agent.ask(protocol.Status(1), timeout_s=0.5)
            except UNREACHABLE:
                continue
            assert isinstance(answer, protocol.StatusResult)
            found[node.name] = answer
        return found

    def leader(self) -> Node | None:
        """Whoever leads in the latest term that anybody tells of."""
        leaders = [s for s in self.statuses().values() if s.role == "leader"]
        if not leaders:
            return None
        return self.node(max(leaders, key=lambda status: status.term).node_id)

    def voters(self) -> list[Node]:
        """As the node with the latest commit knows them."""
        statuses = self.statuses().values()
        if not statuses:
            return []
        latest = max(statuses, key=lambda status: (status.term, status.commit_index))
        return [node for node in self.nodes if node.name in latest.voters]

    def directions(
        self, sources: Sequence[Node], targets: Sequence[Node]
    ) -> Iterator[tuple[str, str]]:
        """All pairs of their addresses, from the one to the other."""
        for source in sources:
            for target in targets:
                if source is not target:
                    for one in source.addresses:
                        for other in target.addresses:
                            yield one, other

    def helper(self, script: str) -> subprocess.Popen[bytes]:
        """A bash that does something over and over while a strike lasts."""
        nothing = subprocess.DEVNULL
        # With a trap it waits for what it has just started before it ends itself.
        process = subprocess.Popen(
            ["bash", "-c", f"trap 'exit 0' TERM; {script}"],
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            start_new_session=True,
        )
        self._helpers.append(process)
        return process

    def end_helper(self, process: subprocess.Popen[bytes]) -> None:
        """It does nothing any more afterwards, nor does what it has started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_HELPER_ENDS_S)
        self._helpers.remove(process)

    def end(self) -> None:
        """SIGKILL to everything that was started here."""
        for process in [*self._helpers]:
            self.end_helper(process)
        for node in self.nodes:
            node.kill()


def missing() -> str | None:
    """What keeps torture from running here, None when nothing does."""
    if not harness.is_privileged():
        return "needs root: makes network namespaces"
    for program, package in (("ip", "iproute2"), ("nft", "nftables"), ("gcc", "gcc libc6-dev")):
        if shutil.which(program) is None:
            return f"{program} is missing: apt-get install {package}"
    # With other disks no power would fail, and nobody would know.
    return lossy_disks_missing()


def _config(name: str, home: Path, peers: Sequence[tuple[str, str]], options: Options) -> str:
    ebpf = "" if options.skewed else '[ebpf]\nenabled = true\ninterface = "eth0"\n'
    return (
        f'[server]\nnode_id = "{name}"\nlisten_addr = "0.0.0.0:{PORT}"\n'
        f'data_dir = "{home / "disk" / "data"}"\nipc_socket = "{home / "ipc.sock"}"\n'
        f"[timing]\nstate_check_interval_ms = 5000\n{options.timing}\n"
        f"[storage]\n{options.storage}\n{ebpf}"
        + "".join(f'[[peers]]\nid = "{p}"\naddress = "{a}:{PORT}"\n' for p, a in peers)
    )


@contextmanager
def _bpf_mounted(place: Path) -> Iterator[Path]:
    place.mkdir()
    harness.run("mount", "-t", "bpf", "bpf", place)
    try:
        yield place
    finally:
        harness.run("umount", place)


@contextmanager
def world(directory: Path, options: Options) -> Iterator[World]:
    """A running cluster. Processes, namespaces and mounts are gone afterwards; files stay."""
    names = [f"node-{n:02}" for n in range(1, options.voters + options.spares + 1)]
    founders = names[: options.voters]
    papers = Papers(directory / "papers")
    library = clocks.build(directory)
    chance = random.Random(f"{options.seed}/machines")
    with ExitStack() as stack:
        hub, guest, *own = stack.enter_context(netns.namespaces("hub", "clients", *names))
        netns.ip("-n", hub, "link", "add", "br0", "type", "bridge")
        netns.ip("-n", hub, "link", "set", "br0", "up")
        netns.plug(hub, guest, "clients", f"{GUEST}/16")
        nodes: list[Node] = []
        pins = stack.enter_context(_bpf_mounted(directory / "bpf"))
        places = {name: (f"10.77.1.{n}", f"10.77.2.{n}") for n, name in enumerate(names, 1)}
        for name, namespace in zip(names, own, strict=True):
            netns.plug(hub, namespace, name, f"{places[name][0]}/16")
            netns.ip("-n", namespace, "addr", "add", f"{places[name][1]}/16", "dev", "eth0")
            home = directory / name
            peers = [(p, places[p][0]) for p in founders if p != name and name in founders]
            agent = Agent(name, home, _config(name, home, peers, options), netns.enter(namespace))
            use(agent, papers.of_node(name, *places[name]))
            rate_ppm = chance.randint(-450, 450) if options.skewed else 0
            clock = Clock(home / "clock", library, rate_ppm)
            agent.environment |= clock.environment
            if options.source is not None:
                agent.environment["PYTHONPATH"] = str(options.source)
            disk = (LossyDisk if options.lossy else PlainDisk)(
                home / "disk", chance.randrange(1 << 30)
            )
            stack.callback(disk.close)
            if options.fsync_ms and disk.can_fail:
                disk.command(f"fsync_takes {options.fsync_ms}")
            agent.data_dir = home / "disk" / "data"
            agent.environment["RAFT_EBPF_PIN_DIR"] = str(pins / name)
            nodes.append(
                Node(
                    name,
                    namespace,
                    addresses=places[name],
                    agent=agent,
                    disk=disk,
                    clock=clock,
                    pins=pins / name,
                )
            )
        made = World(
            directory, options, nodes=nodes, network=Network(hub), papers=papers, guest=guest
        )
        stack.callback(made.end)
        for node in nodes[: options.voters]:
            node.start()
        wait_for("a leader", made.leader, timeout_s=120)
        yield made


@contextmanager
def clients(world: World) -> Iterator[subprocess.Popen[bytes]]:
    """The process with all clients, in a namespace of its own; it writes `history.jsonl`."""
    files = world.papers.of_clients()
    spec = Spec(
        addresses=[f"{a}:{PORT}" for node in world.nodes for a in node.addresses],
        ca=files.ca,
        cert=files.cert,
        key=files.key,
        seed=world.options.seed,
        pause_s=world.options.pause_s,
    )
    with start_clients(world.directory, spec, world.guest) as process:
        yield process


@contextmanager
def start_clients(directory: Path, spec: Spec, namespace: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process with all clients, in this namespace, gone afterwards."""
    place = directory / "clients.json"
    place.write_bytes(msgspec.json.encode(spec))
    command = [*netns.enter(namespace), sys.executable, "-m", "tests.torture.clients"]
    with (directory / "clients.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, str(place), str(directory / "history.jsonl")],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def end_clients(working: subprocess.Popen[bytes], directory: Path) -> str | None:
    """Have them read everything once more, and end; what went wrong."""
    assert working.stdin is not None
    status: int | None
    try:
        working.stdin.write(b"\n")
        working.stdin.flush()
        status = working.wait(_CLIENTS_END_S)
    except (BrokenPipeError, subprocess.TimeoutExpired):
        status = working.poll()
    if status == 0:
        return None
    return f"the clients ended with {status}: {(directory / 'clients.log').read_text()[-2000:]}"
