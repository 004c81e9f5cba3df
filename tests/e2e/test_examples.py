"""The three files of examples/three-nodes make a cluster, as its README says."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.agents import free_ports, wait_for

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "three-nodes"
BIN = Path(sys.executable).parent
NAMES = ("node-01", "node-02", "node-03")
FOURTH = "node-04"
PORTS = (5555, 5556, 5557, 5558)


def is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The files themselves, or copies with other ports when somebody uses theirs."""
    if all(map(is_free, PORTS)):
        return EXAMPLE
    texts = {name: (EXAMPLE / f"{name}.toml").read_text() for name in (*NAMES, FOURTH)}
    for port, other in zip(PORTS, free_ports(len(PORTS)), strict=True):
        texts = {name: text.replace(f":{port}", f":{other}") for name, text in texts.items()}
    for name, text in texts.items():
        (tmp_path / f"{name}.toml").write_text(text)
    return tmp_path


@contextmanager
def running(files: Path, folder: Path, *names: str) -> Iterator[None]:
    """The agents with these files; what else belongs to them is in the folder."""
    with ExitStack() as stack:
        for name in names:
            log = stack.enter_context((folder / f"{name}.log").open("a"))
            agent = subprocess.Popen(
                [
                    *(BIN / "raft-agent", "--config", files / f"{name}.toml"),
                    *("--set", f"server.data_dir={folder / name}"),
                    *("--set", f"server.ipc_socket={folder / name}.sock"),
                ],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
            stack.callback(agent.wait)
            stack.callback(agent.kill)
        yield


@pytest.fixture
def cluster(files: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder of the sockets, while the three agents run."""
    with running(files, tmp_path, *NAMES):
        yield tmp_path


def raftctl(cluster: Path, name: str, *arguments: str) -> str | None:
    """What it prints; None when it failed."""
    done = subprocess.run(
        [BIN / "raftctl", "--socket", cluster / f"{name}.sock", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode == 0 else None


def test_the_three_files_make_a_cluster(cluster: Path) -> None:
    text = "Hello from the RAFT cluster!"
    wait_for(
        "a leader that takes the message of a follower",
        lambda: raftctl(cluster, "node-01", "--forward", "send", text),
    )
    for name in NAMES:
        wait_for(
            f"the message on {name}",
            lambda name=name: text in (raftctl(cluster, name, "messages") or "") or None,
        )
        status = raftctl(cluster, name, "status")
        assert status is not None
        others = ", ".join(f'"{other}"' for other in NAMES if other != name)
        assert f"Peers:        [{others}]" in status
        assert re.search(r"^Leader:       node-0[123]$", status, re.MULTILINE)


def test_a_fourth_joins_the_three_and_one_of_them_leaves(
    files: Path, cluster: Path, tmp_path: Path
) -> None:
    found = re.search(r'"(127[^"]+)"', (files / f"{FOURTH}.toml").read_text())
    assert found is not None
    with running(files, tmp_path, FOURTH):
        wait_for("it to be a voter", lambda: raftctl(cluster, "node-01", "join", FOURTH, found[1]))
        left = raftctl(cluster, FOURTH, "leave", "node-02")
        assert left is not None
        listed = raftctl(cluster, "node-01", "member", "list")
        assert listed is not None
        names = [line.split()[0] for line in listed.splitlines()[1:]]
        assert names == ["node-01", "node-03", FOURTH]
        wait_for(
            "who left to know it",
            lambda: "was removed" in (raftctl(cluster, "node-02", "status") or "") or None,
        )


def test_the_files_differ_only_in_who_the_node_is() -> None:
    for number, name in enumerate(NAMES):
        text = (EXAMPLE / f"{name}.toml").read_text()
        assert f'node_id = "{name}"' in text
        assert f'listen_addr = "127.0.0.1:{PORTS[number]}"' in text
        assert f'data_dir = "/tmp/raft/{name}"' in text
        peers = re.findall(r'id = "(node-0\d)"\naddress = "127.0.0.1:(\d+)"', text)
        assert peers == [
            (other, str(port))
            for other, port in zip(NAMES, PORTS[:3], strict=True)
            if other != name
        ]
