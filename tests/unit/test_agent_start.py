"""The command line of raft-agent up to the moment where the node starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import raft_agent
from raft_agent.runtime.engine import Excuses

AGENT = Path(sys.executable).parent / "raft-agent"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "raft.toml"
    path.write_text(
        f'[server]\nnode_id = "node-01"\nlisten_addr = "127.0.0.1:5555"\n'
        f'data_dir = "{tmp_path}/data"\n'
    )
    return path


def agent(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAFT_")}
    return subprocess.run(
        [AGENT, *arguments],
        env=kept | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_version_is_the_distributions() -> None:
    done = agent("--version")
    assert (done.returncode, done.stdout) == (0, f"raft-agent {raft_agent.__version__}\n")


def test_check_says_that_all_is_well_and_leaves_nothing_behind(file: Path) -> None:
    done = agent("--config", file, "--check", "--set", "ebpf.enabled=true")
    assert done.returncode == 0, done.stderr
    first, *notes = done.stdout.splitlines()
    assert first == "configuration ok: node-01 listens at 127.0.0.1:5555, no peers"
    assert "note: others are told to dial 127.0.0.1:5555" in notes
    assert [entry.name for entry in file.parent.iterdir()] == ["raft.toml"]


@pytest.mark.parametrize("check", [["--check"], []])
def test_a_refused_configuration_ends_with_status_2(file: Path, check: list[str]) -> None:
    file.write_text("[server]\nnode_id = 5\n")
    done = agent("--config", file, *check, RAFT_TIMING_HEARTBEAT_INTERVAL_MS="x")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{file}:2: server.node_id must be a string" in done.stderr
    assert f"{file}:1: server.data_dir is missing" in done.stderr
    assert "RAFT_TIMING_HEARTBEAT_INTERVAL_MS in the environment: " in done.stderr


@pytest.mark.parametrize(
    "arguments", [[], ["--config"], ["--no-such"], ["--config", "a", "surplus"]]
)
def test_a_wrong_command_line_ends_with_status_2(arguments: list[str]) -> None:
    assert agent(*arguments).returncode == 2


@pytest.mark.parametrize(
    "environ", [{"RAFT_LOG": "loud"}, {"RAFT_LOG": "raft.sound=info"}, {"RAFT_LOG_FORMAT": "xml"}]
)
@pytest.mark.parametrize("check", [["--check"], []])
def test_a_wrong_log_filter_ends_with_status_2(
    file: Path, environ: dict[str, str], check: list[str]
) -> None:
    done = agent("--config", file, *check, **environ)
    assert (done.returncode, done.stdout) == (2, "")
    (variable,) = environ
    first, second = done.stderr.splitlines()
    assert first == "raft-agent: the configuration is refused"
    assert second.startswith(f"{variable} in the environment: must ")


@pytest.mark.parametrize("check", [["--check"], []])
def test_excuses_that_there_are_not_end_with_status_2(file: Path, check: list[str]) -> None:
    done = agent("--config", file, *check, RAFT_TEST_EXCUSES="stamps")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[1].startswith(
        "RAFT_TEST_EXCUSES in the environment: must be all, stamp or none"
    )


@pytest.mark.parametrize("excuses", ["", *(excuses.value for excuses in Excuses)])
def test_all_excuses_that_there_are_can_be_chosen_for_tests(file: Path, excuses: str) -> None:
    done = agent("--config", file, "--check", RAFT_TEST_EXCUSES=excuses)
    assert done.returncode == 0, done.stderr
    is_told = "note: RAFT_TEST_EXCUSES is for tests: " in done.stdout
    assert is_told == (excuses not in ("", "all"))


def test_check_says_that_a_lone_node_would_wait(file: Path) -> None:
    alone = agent("--config", file, "--check").stdout
    assert "note: an empty data directory would wait to be joined: " in alone
    for start in ("cluster.bootstrap=true", "peers=node-02=127.0.0.1:5556"):
        assert "wait to be joined" not in agent("--config", file, "--check", "--set", start).stdout


def test_a_port_in_use_is_said_once_and_what_to_do(file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = agent(
            "--config",
            file,
            "--set",
            f"server.listen_addr=127.0.0.1:{port}",
            "--set",
            f"server.ipc_socket={file.parent}/socket",
        )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.endswith(
        f"the agent ends: can't listen on 127.0.0.1:{port}: address already in use; end the "
        "program that listens there, or set server.listen_addr"
    )


def test_an_address_of_another_machine_is_said_to_be_one(file: Path) -> None:
    done = agent(
        "--config",
        file,
        "--set",
        "server.listen_addr=192.0.2.1:5555",
        "--set",
        f"server.ipc_socket={file.parent}/socket",
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "the agent ends: can't listen on 192.0.2.1:5555: this machine has no such address; set "
        "server.listen_addr to one that it has, or to 0.0.0.0:5555"
    )


def test_an_option_of_the_kernel_part_says_when_there_is_none(file: Path) -> None:
    option = ["--bpf-object", "x.o"]
    done = agent("--config", file, "--check", *option)
    assert done.returncode == 0
    assert f"note: {option[0]} has no effect: ebpf.enabled is false" in done.stdout.splitlines()
    done = agent("--config", file, "--check", "--set", "ebpf.enabled=true", *option)
    assert "no effect" not in done.stdout
