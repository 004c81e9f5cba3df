"""A cluster of background agents in one directory: its files, its start and its end."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from raftctl import dev_bpf, dev_process
from raftctl.context import Context
from raftctl.errors import CommandError
from raftctl.sockets import user_name, usual_paths

if TYPE_CHECKING:
    from raft_agent.api.protocol import StatusResult

DEFAULT_NODES = 3
_FORM_FILE = "dev.json"
_START_TIMEOUT_S = 30.0
_STOP_PATIENCE_S = 10.0
# A node that is in no cluster when the others agree is in the middle of its first start, or has to
# be joined by somebody.
_JOIN_PATIENCE_S = 3.0
_POLL_S = 0.05
_ELSEWHERE = "Give a --dir that you may write to and where there is room"
# Below the ports that Linux hands out to connections (32768 and up), so that no connection sits on
# a node's port while the node is down.
_FIRST_PORT = 10_000
_PORTS = 20_000
_ISOLATED_PORT = 5555
_ISOLATED_NETWORK = "10.201.0"


class IncompleteError(CommandError):
    """Some nodes of a cluster did not start, and the others serve without them."""


@dataclass(frozen=True)
class Node:
    """One node's files. `number` counts from 1."""

    number: int
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def config(self) -> Path:
        return self.folder / "raft.toml"

    @property
    def pid_file(self) -> Path:
        return self.folder / "agent.pid"

    @property
    def log(self) -> Path:
        return self.folder / "agent.log"

    @property
    def socket(self) -> Path:
        """Where an agent without ipc_socket in its configuration listens."""
        return usual_paths(self.name)[-1]

    def status_page(self) -> str | None:
        """Where the node's configuration has it served, if at all; seen from the node."""
        try:
            server = tomllib.loads(self.config.read_text())["server"]
        except (OSError, ValueError, KeyError):
            return None
        return f"http://{server['http_addr']}/" if "http_addr" in server else None

    def pid(self) -> int | None:
        """The agent's pid while it runs, else None."""
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        return pid if dev_process.runs_config(pid, self.config) else None


class Form(NamedTuple):
    """What a cluster is like for as long as its files stay."""

    nodes: int
    isolated: bool = False
    ebpf: bool = False
    http: bool = False


def default_dir() -> Path:
    """By the XDG base directory specification, as it is state and not configuration."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "raft-ebpf" / "dev"


class DevCluster:
    """The cluster whose files are in `folder` (absolute)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tag = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
        self._log_begins: dict[str, int] = {}

    # --- Its form -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One `dev up` or `dev down` at a time."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "dev.lock").open("w")
        except OSError as failure:
            raise CommandError(
                f"Can't use {self.folder}: {failure.strerror}", hint=_ELSEWHERE
            ) from failure
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as busy:
                raise CommandError(
                    f"Another raftctl dev is at work in {self.folder}",
                    hint="Wait until it has ended, or give another --dir",
                ) from busy
            yield

    def form(self) -> Form | None:
        """The form of a cluster that was set up here before."""
        path = self.folder / _FORM_FILE
        try:
            data = json.loads(path.read_text())
            more = (bool(data.get(name, False)) for name in ("ebpf", "http"))
            return Form(int(data["nodes"]), bool(data["isolated"]), *more)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as damage:
            raise CommandError(
                f"{path} is damaged", hint=f"If its data is not needed: rm -r {self.folder}"
            ) from damage

    def nodes(self, count: int) -> list[Node]:
        return [Node(n, self.folder / f"node-{n:02d}") for n in range(1, count + 1)]

    # --- Files ----------------------------------------------------------------------------------

    def write_files(self, form: Form) -> list[Node]:
        """Everything for a first start; the form last, so that a half-written one starts over."""
        nodes = self.nodes(form.nodes)
        if form.isolated:
            addresses = [isolated_address(node) for node in nodes]
        else:
            ports = self._free_ports(form.nodes * (2 if form.http else 1))
            addresses = [f"127.0.0.1:{port}" for port in ports]
        try:
            for node in nodes:
                (node.folder / "data").mkdir(parents=True, exist_ok=True)
                node.config.write_text(self._config(node, nodes, addresses, form))
            (self.folder / _FORM_FILE).write_text(json.dumps(form._asdict()) + "\n")
        except OSError as failure:
            raise CommandError(
                f"Can't write to {self.folder}: {failure.strerror}", hint=_ELSEWHERE
            ) from failure
        return nodes

    def _config(self, node: Node, nodes: list[Node], addresses: list[str], form: Form) -> str:
        """`addresses`: those of the nodes, then those of their status pages."""
        # An isolated node that is alone has no route to a peer that could tell the interface.
        interface = "eth0" if form.isolated else "lo"
        lines = [
            "# Written by raftctl dev up.",
            "[server]",
            f"node_id = {_toml(node.name)}",
            f"listen_addr = {_toml(addresses[node.number - 1])}",
            f"data_dir = {_toml(str(node.folder / 'data'))}",
        ]
        if form.http:
            lines += [f"http_addr = {_toml(addresses[form.nodes + node.number - 1])}"]
        pins = dev_bpf.pin_base(self.folder, self.tag, wanted=form.ebpf)
        lines += [
            "",
            "[ebpf]",
            f"enabled = {str(form.ebpf).lower()}",
            f"interface = {_toml(interface)}",
            f"pin_dir = {_toml(pins + node.name)}",
        ]
        if len(nodes) == 1:
            lines += ["", "[cluster]", "bootstrap = true"]
        for peer, address in zip(nodes, addresses, strict=False):
            if peer != node:
                lines += ["", "[[peers]]", f"id = {_toml(peer.name)}"]
                lines += [f"address = {_toml(address)}"]
        return "\n".join(lines) + "\n"

    def _free_ports(self, count: int) -> list[int]:
        """Ports that nobody listens on. Where the search begins depends on the directory, so that
        clusters that are down at the moment rarely share ports.
        """
        start = int(self.tag, 16) % _PORTS
        ports: list[int] = []
        for step in range(_PORTS):
            port = _FIRST_PORT + (start + step) % _PORTS
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                try:
                    sock.bind(("127.0.0.1", port))
                except OSError:
                    continue
            ports.append(port)
            if len(ports) == count:
                return ports
        raise CommandError(
            f"There are no {count} free ports from {_FIRST_PORT} on",
            hint="Start fewer --nodes, or end another cluster: raftctl dev down --dir DIR",
        )

    # --- Start ----------------------------------------------------------------------------------

    def refuse_foreign_sockets(self, nodes: list[Node]) -> None:
        """Raises CommandError when another cluster's agent holds the socket of one of the nodes."""
        for node in nodes:
            for path in usual_paths(node.name):
                pid = dev_process.listener_pid(path)
                if pid is None or pid == node.pid():
                    continue
                config = dev_process.config_of(pid) if pid else None
                if config is not None and config.name == "raft.toml":
                    owner = f"the agent of {config.parent}"
                    hint = f"End it first: raftctl dev down --dir {config.parent.parent}"
                elif pid:
                    owner = f"pid {pid}"
                    hint = f"End the process with pid {pid} first"
                else:
                    owner = f"an agent of {user_name(path.stat().st_uid)}"
                    hint = "Only that user or root can end it"
                raise CommandError(f"{path} is in use by {owner}", hint=hint)

    def start(self, nodes: list[Node], isolated: bool, options: tuple[str, ...]) -> list[Node]:
        """Starts the nodes that don't run, with these options; those that it started."""
        started = [node for node in nodes if node.pid() is None]
        for node in started:
            command = dev_process.agent_command(node.config, *options)
            if isolated:
                from raftctl import dev_isolated  # noqa: PLC0415

                command = dev_isolated.inside(dev_isolated.namespace(self.tag, node.name), command)
            self._log_begins[node.name] = dev_process.log_size(node.log)
            pid = dev_process.spawn(command, node.folder, node.log)
            node.pid_file.write_text(f"{pid}\n")
        return started

    def wait_ready(self, nodes: list[Node], *, is_known: bool = False) -> list[StatusResult]:
        """Waits until all answer, and those who are members agree on a leader that knows it. Raises
        CommandError when an agent ends or time runs out.

        `is_known`: this cluster was here before, so the others may do without the one that ended;
        if they do, it is an IncompleteError.
        """
        deadline = time.monotonic() + _START_TIMEOUT_S
        no_more_joins = deadline
        while True:
            ended = [node for node in nodes if node.pid() is None]
            alive = [node for node in nodes if node not in ended]
            if ended and not (is_known and alive):
                raise self._has_ended(ended)
            statuses = [_status(node) for node in alive]
            known = [status for status in statuses if status is not None]
            starting = any(_kernel_part_starts(status) for status in known)
            if len(known) == len(alive) and agree(known) and not starting:
                if ended:
                    raise self._has_ended(ended, alive)
                if all(status.cluster_id for status in known) or time.monotonic() > no_more_joins:
                    return known
                no_more_joins = min(no_more_joins, time.monotonic() + _JOIN_PATIENCE_S)
            if time.monotonic() > deadline:
                if ended:
                    raise self._has_ended(ended)
                silent = [n.name for n, s in zip(alive, statuses, strict=True) if s is None]
                missing = f"no answer from {', '.join(silent)}" if silent else "no leader"
                raise CommandError(
                    f"Not ready after {_START_TIMEOUT_S:g} s: {missing}",
                    "no_leader",
                    f"The agents' logs: {self.folder}/node-*/agent.log",
                )
            time.sleep(_POLL_S)

    def _has_ended(self, ended: list[Node], others: Sequence[Node] = ()) -> CommandError:
        """`others`: those who run without them."""
        names = ", ".join(node.name for node in ended)
        details: list[str] = []
        for node in ended:
            details += dev_process.last_lines(node.log, self._log_begins.get(node.name, 0))
        logs = ", ".join(str(node.log) for node in ended)
        hint = f"Its log: {logs}" if len(ended) == 1 else f"Their logs: {logs}"
        verb = "has" if len(ended) == 1 else "have"
        if not others:
            return CommandError(f"{names} {verb} ended", hint=hint, details=details)
        run_on = f"{', '.join(node.name for node in others)} run and have a leader"
        return IncompleteError(
            f"{names} {verb} ended; {run_on}",
            hint=f"{hint}. To end the others: raftctl dev down --dir {self.folder}",
            details=details,
        )

    # --- End ------------------------------------------------------------------------------------

    def stop(self, nodes: list[Node]) -> tuple[list[str], list[str]]:
        """Ends the agents that run from here; (names that ran, names that had to be killed)."""
        running = {node.name: (pid, node.config) for node in nodes if (pid := node.pid())}
        killed = dev_process.end(running, _STOP_PATIENCE_S)
        for node in nodes:
            node.pid_file.unlink(missing_ok=True)
        return list(running), killed


def isolated_address(node: Node) -> str:
    return f"{_ISOLATED_NETWORK}.{node.number}:{_ISOLATED_PORT}"


def _toml(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's too."""
    return json.dumps(text, ensure_ascii=False)


def _status(node: Node) -> StatusResult | None:
    from raft_agent.api import protocol  # noqa: PLC0415

    context = Context(node=node.name, socket=node.socket, timeout_s=1.0)
    try:
        return context.ask(protocol.Status(id=1), protocol.StatusResult)
    except CommandError:
        return None


def _kernel_part_starts(status: StatusResult) -> bool:
    from raft_agent.api import protocol  # noqa: PLC0415

    return status.ebpf.reason == protocol.EBPF_STARTING


def agree(statuses: list[StatusResult]) -> bool:
    """Whether those who are members do. The leader may be a node that was joined besides these."""
    members = [status for status in statuses if status.cluster_id and not status.removed]
    leaders = {status.leader for status in members}
    terms = {status.term for status in members}
    if len(leaders) != 1 or len(terms) != 1 or None in leaders:
        return False
    if not all(status.commit_index for status in members):
        return False  # the leader's first entry has not gone round yet
    leading = {status.node_id for status in members if status.role == "leader"}
    return leading == leaders or leaders.isdisjoint(status.node_id for status in statuses)
