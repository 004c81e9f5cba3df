from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from raft_agent.api import protocol
from raft_agent.config import load
from raftctl import dev_bpf, dev_cluster, dev_process, sockets
from raftctl.dev_cluster import DevCluster, Form, default_dir
from raftctl.errors import CommandError
from raftctl.main import cli

SLEEPER = "import signal, sys; print('up', flush=True); signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER


def start(script: str, config: Path, log: Path) -> int:
    """A process that looks like an agent with this configuration; it is up when this returns."""
    command = [sys.executable, "-c", script, "--config", str(config)]
    pid = dev_process.spawn(command, config.parent, log)
    deadline = time.monotonic() + 20
    while log.read_text() != "up\n":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return pid


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_the_agent_accepts_the_written_configurations(
    tmp_path: Path, count: int, isolated: bool
) -> None:
    cluster = DevCluster(tmp_path / 'a "dir"')
    form = Form(count, isolated, ebpf=isolated, http=not isolated)
    nodes = cluster.write_files(form)
    configs = [load(node.config, environ={}) for node in nodes]
    assert [config.server.node_id for config in configs] == [node.name for node in nodes]
    assert len({config.server.listen_addr for config in configs}) == count
    assert len({config.ebpf.pin_dir for config in configs}) == count
    for node, config in zip(nodes, configs, strict=True):
        assert Path(config.server.data_dir) == node.folder / "data"
        assert Path(config.server.data_dir).is_dir()
        assert config.ipc_socket == str(node.socket) == f"/tmp/raft-{node.name}.sock"  # noqa: S108
        others = {c.server.node_id: c.server.listen_addr for c in configs if c is not config}
        assert {peer.id: peer.address for peer in config.peers} == others
        assert config.cluster.bootstrap == (count == 1)
        assert config.ebpf.enabled == isolated
        assert config.ebpf.interface == ("eth0" if isolated else "lo")
        page = None if isolated else f"http://{config.server.http_addr}/"
        assert node.status_page() == page
    if not isolated:
        ports = {c.server.listen_addr for c in configs} | {c.server.http_addr for c in configs}
        assert len(ports) == 2 * count
    assert cluster.form() == form


def test_a_directory_of_an_older_version_has_no_status_pages(tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text('{"nodes": 3, "isolated": false}')
    assert DevCluster(tmp_path).form() == Form(3)


def test_status_pages_are_not_added_to_a_cluster_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_PLACES", ((tmp_path, "raft-", ".sock"),))
    DevCluster(tmp_path).write_files(Form(1))
    done = CliRunner().invoke(cli, ["dev", "up", "--http", "--dir", str(tmp_path)])
    assert done.exit_code == 1
    assert "without status pages" in done.stderr
    assert "give every node an http_addr" in done.stderr


def test_a_directory_without_a_cluster_has_no_form_and_a_damaged_one_says_so(
    tmp_path: Path,
) -> None:
    cluster = DevCluster(tmp_path)
    assert cluster.form() is None
    (tmp_path / "dev.json").write_text("{")
    with pytest.raises(CommandError, match="damaged"):
        cluster.form()


def test_ports_in_use_are_left_out(tmp_path: Path) -> None:
    cluster = DevCluster(tmp_path)
    first, second = cluster._free_ports(2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        assert cluster._free_ports(1)[0] >= second


def test_only_one_dev_works_in_a_directory_at_a_time(tmp_path: Path) -> None:
    with (
        DevCluster(tmp_path).locked(),
        pytest.raises(CommandError, match="at work"),
        DevCluster(tmp_path).locked(),
    ):
        pass
    with DevCluster(tmp_path).locked():
        pass


def test_where_the_machine_has_no_bpf_file_system_the_cluster_gets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev_bpf, "_USUAL", tmp_path / "usual")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "platform", "linux")
    cluster = DevCluster(tmp_path / "dev")
    (node,) = cluster.write_files(Form(1, ebpf=True))
    assert load(node.config).ebpf.pin_dir == str(tmp_path / "dev" / "bpf" / "node-01")
    assert (tmp_path / "dev" / "bpf").is_dir()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    pins = dev_bpf.pin_base(cluster.folder, cluster.tag, wanted=True)
    assert pins == f"{tmp_path}/usual/raftdev-{cluster.tag}-"


def test_the_default_directory_is_the_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_dir() == Path("/state/raft-ebpf/dev")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_dir() == Path("/home/me/.local/state/raft-ebpf/dev")


def test_a_process_is_recognised_by_its_configuration(tmp_path: Path) -> None:
    config = tmp_path / "raft.toml"
    pid = start(SLEEPER, config, tmp_path / "log")
    try:
        assert dev_process.runs_config(pid, config)
        assert not dev_process.runs_config(pid, tmp_path / "other.toml")
        assert dev_process.config_of(pid) == config
    finally:
        assert dev_process.end({"n": (pid, config)}, 20) == []
    assert not dev_process.runs_config(pid, config)


def test_a_process_is_recognised_from_its_start_on(tmp_path: Path) -> None:
    """Else dev up takes it for one that has ended."""
    config = tmp_path / "raft.toml"
    command = [sys.executable, "-c", SLEEPER, "--config", str(config)]
    seen = []
    for _ in range(20):
        pid = dev_process.spawn(command, tmp_path, tmp_path / "log")
        seen.append(dev_process.runs_config(pid, config))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert all(seen)


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    config = tmp_path / "raft.toml"
    pid = start(STUBBORN, config, tmp_path / "log")
    assert dev_process.end({"n": (pid, config)}, 0.2) == ["n"]
    assert dev_process.command_line(pid) == []


def test_a_pid_that_was_given_out_again_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        assert dev_process.end({"n": (other.pid, tmp_path / "raft.toml")}, 20) == []
        assert other.poll() is None
        other.kill()


def test_an_agent_sees_no_variable_that_overrides_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFT_SERVER_NODE_ID", "wrong")
    monkeypatch.setenv("RAFT_LOG", "debug")
    log = tmp_path / "log"
    script = "import os; print(*(n for n in os.environ if n.startswith('RAFT_')))"
    pid = dev_process.spawn([sys.executable, "-c", script], tmp_path, log)
    os.waitpid(pid, 0)
    assert log.read_text() == "RAFT_LOG\n"


def test_the_listener_of_a_socket_is_found(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert dev_process.listener_pid(path) is None
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        assert dev_process.listener_pid(path) is None
        sock.listen()
        assert dev_process.listener_pid(path) == os.getpid()


def test_the_command_runs_the_agent_of_this_installation(tmp_path: Path) -> None:
    command = dev_process.agent_command(tmp_path / "raft.toml")
    version = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert version.startswith("raft-agent ")


def test_a_refused_dev_leaves_no_directory_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ((tmp_path, "raft-", ".sock"),)
    monkeypatch.setattr(sockets, "_PLACES", places)
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(tmp_path / "raft-node-02.sock"))
        foreign.listen()
        done = CliRunner().invoke(cli, ["dev", "up", "--dir", str(tmp_path / "new" / "er")])
    assert done.exit_code == 1
    assert "raft-node-02.sock is in use" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_socket_of_another_user_is_refused_with_the_users_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_PLACES", ((tmp_path, "raft-", ".sock"),))
    monkeypatch.setattr(dev_process, "listener_pid", lambda _path: 0)
    path = tmp_path / "raft-node-01.sock"
    path.touch()
    done = CliRunner().invoke(cli, ["dev", "up", "--dir", str(tmp_path / "new")])
    assert done.exit_code == 1
    assert f"{path} is in use by an agent of {sockets.user_name(os.getuid())}\n" in done.stderr
    assert "pid 0" not in done.stderr


def test_an_agent_that_ends_at_once_is_reported_with_what_it_said_this_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_PLACES", ((tmp_path, "raft-", ".sock"),))
    script = "print('the configuration is refused'); print('raft.toml:3: no such key')"

    def command(config: Path) -> list[str]:
        return [sys.executable, "-c", script, "--config", str(config)]

    monkeypatch.setattr(dev_process, "agent_command", command)
    log = tmp_path / "dev" / "node-01" / "agent.log"
    log.parent.mkdir(parents=True)
    log.write_text("of an earlier run\n")
    done = CliRunner().invoke(cli, ["dev", "up", "--nodes", "1", "--dir", str(tmp_path / "dev")])
    assert done.exit_code == 1
    assert done.stderr.splitlines()[1:] == [
        "✗ Failed to start the cluster: node-01 has ended",
        "    the configuration is refused",
        "    raft.toml:3: no such key",
        f"  Hint: Its log: {log}",
    ]


def test_ending_what_is_no_cluster_leaves_nothing_in_the_directory(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["dev", "down", "--dir", str(tmp_path)])
    assert done.exit_code == 1
    assert "no cluster" in done.stderr
    assert list(tmp_path.iterdir()) == []


def status(name: str, leader: str | None, **more: Any) -> protocol.StatusResult:
    """What the node says when all three are members and `leader` leads."""
    names = ["node-01", "node-02", "node-03"]
    told: dict[str, Any] = {
        "node_id": name,
        "role": "leader" if name == leader else "follower",
        "term": 2,
        "commit_index": 4,
        "last_applied": 4,
        "leader": leader,
        "peers": [],
        "voters": names,
        "learners": [],
        "members": [protocol.MemberInfo(item, "", "", "voter") for item in names],
        "cluster_id": "c0ffee",
        "version": "0",
        "ebpf": protocol.EbpfStatus(),
    }
    return protocol.StatusResult(**{**told, **more})


MEMBERS = [status(f"node-0{number}", "node-01") for number in (1, 2)]
REMOVED = status("node-03", None, term=1, removed=True, note="this node was removed")
FRESH = status("node-03", None, term=0, commit_index=0, members=[], cluster_id="", note="waits")


@pytest.mark.parametrize(
    ("statuses", "agreed"),
    [
        ([*MEMBERS, status("node-03", "node-01")], True),
        ([*MEMBERS, status("node-03", None)], False),
        ([*MEMBERS, status("node-03", "node-01", term=3)], False),
        ([*MEMBERS, status("node-03", "node-01", commit_index=0)], False),
        ([status(f"node-0{number}", "node-01", role="follower") for number in (1, 2, 3)], False),
        # One that was joined besides these leads.
        ([status(f"node-0{number}", "node-04") for number in (1, 2, 3)], True),
        ([*MEMBERS, REMOVED], True),
        ([*MEMBERS, FRESH], True),
        ([REMOVED], False),
        ([FRESH], False),
    ],
)
def test_a_cluster_is_ready_when_those_who_are_members_agree(
    statuses: list[protocol.StatusResult], agreed: bool
) -> None:
    assert dev_cluster.agree(statuses) is agreed


def test_a_node_that_has_to_be_joined_holds_up_a_start_only_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    first_start = {node.node_id: node for node in (*MEMBERS, FRESH)}

    def sleep(seconds: float) -> None:
        now_s[0] += seconds

    monkeypatch.setattr(dev_cluster.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(dev_cluster.time, "sleep", sleep)
    monkeypatch.setattr(dev_cluster, "_status", lambda node: first_start[node.name])
    monkeypatch.setattr(dev_cluster.Node, "pid", lambda _node: 1)
    cluster = dev_cluster.DevCluster(tmp_path)
    assert cluster.wait_ready(cluster.nodes(3)) == [*MEMBERS, FRESH]
    assert 2 < now_s[0] < 5


def wait_with_a_dead_node(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    others: list[protocol.StatusResult],
    **more: Any,
) -> CommandError:
    """node-03 ends at once; what becomes of a start, with a clock that jumps."""
    now_s = [0.0]
    answers = {node.node_id: node for node in others}

    def sleep(seconds: float) -> None:
        now_s[0] += seconds

    monkeypatch.setattr(dev_cluster.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(dev_cluster.time, "sleep", sleep)
    monkeypatch.setattr(dev_cluster, "_status", lambda node: answers.get(node.name))
    monkeypatch.setattr(dev_cluster.Node, "pid", lambda node: None if node.name == "node-03" else 1)
    cluster = dev_cluster.DevCluster(tmp_path)
    log = cluster.nodes(3)[2].log
    log.parent.mkdir()
    log.write_text("the log is damaged\n")
    with pytest.raises(CommandError) as caught:
        cluster.wait_ready(cluster.nodes(3), **more)
    assert list(caught.value.details) == ["the log is damaged"]
    assert f"Its log: {log}" in caught.value.hint
    return caught.value


def test_a_known_cluster_serves_without_the_node_that_can_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is to take its place needs the others."""
    error = wait_with_a_dead_node(tmp_path, monkeypatch, MEMBERS, is_known=True)
    assert isinstance(error, dev_cluster.IncompleteError)
    assert error.error == "node-03 has ended; node-01, node-02 run and have a leader"
    assert error.exit_status == 1


def test_what_is_left_of_a_known_cluster_has_to_have_a_leader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [status("node-01", None), status("node-02", None)]
    error = wait_with_a_dead_node(tmp_path, monkeypatch, alone, is_known=True)
    assert not isinstance(error, dev_cluster.IncompleteError)
    assert error.error == "node-03 has ended"


def test_a_first_start_needs_every_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = wait_with_a_dead_node(tmp_path, monkeypatch, MEMBERS)
    assert not isinstance(error, dev_cluster.IncompleteError)
    assert error.error == "node-03 has ended"
