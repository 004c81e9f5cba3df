from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raftctl import sockets
from raftctl.context import Context
from raftctl.errors import CommandError


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    run, tmp = tmp_path / "run", tmp_path / "tmp"
    run.mkdir()
    tmp.mkdir()
    monkeypatch.setattr(sockets, "_PLACES", ((run, "", ".sock"), (tmp, "raft-", ".sock")))
    return run, tmp


@contextmanager
def listening(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        yield


def test_the_usual_places_are_those_of_the_contract() -> None:
    paths = [str(path) for path in sockets.usual_paths("node-0")]
    assert paths == ["/run/raft/node-0.sock", "/tmp/raft-node-0.sock"]  # noqa: S108


def test_the_service_socket_goes_before_the_one_in_tmp(places: tuple[Path, Path]) -> None:
    run, tmp = places
    with listening(tmp / "raft-a.sock"):
        assert sockets.find_socket("a") == tmp / "raft-a.sock"
        with listening(run / "a.sock"):
            assert sockets.find_socket("a") == run / "a.sock"


def test_a_missing_socket_names_both_places_and_the_agents_at_hand(
    places: tuple[Path, Path],
) -> None:
    run, tmp = places
    with (
        listening(tmp / "raft-b.sock"),
        listening(run / "c.sock"),
        pytest.raises(CommandError) as caught,
    ):
        sockets.find_socket("a")
    assert str(run / "a.sock") in caught.value.error
    assert str(tmp / "raft-a.sock") in caught.value.error
    assert "b, c" in caught.value.hint
    assert caught.value.exit_status == 5


def test_a_socket_of_another_user_is_refused(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _run, tmp = places
    monkeypatch.setattr(sockets, "trusted_uids", lambda: {os.geteuid() + 1})
    with listening(tmp / "raft-a.sock"), pytest.raises(CommandError) as caught:
        sockets.find_socket("a")
    assert "belongs to" in caught.value.error
    assert caught.value.exit_status == 5


def test_root_oneself_and_the_service_user_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    service = pwd.struct_passwd(("raft", "x", 4321, 4321, "", "/", "/bin/false"))
    monkeypatch.setattr(pwd, "getpwnam", {"raft": service}.__getitem__)
    assert sockets.trusted_uids() == {0, os.geteuid(), 4321}


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_socket_itself_is_refused(places: tuple[Path, Path], kind: str) -> None:
    _run, tmp = places
    target = tmp / "elsewhere"
    with listening(target):
        if kind == "link":
            (tmp / "raft-a.sock").symlink_to(target)
        else:
            (tmp / "raft-a.sock").write_text("")
        with pytest.raises(CommandError, match="is not a socket"):
            sockets.find_socket("a")


def test_without_a_name_the_only_agent_on_the_machine_is_taken(places: tuple[Path, Path]) -> None:
    _run, tmp = places
    context = Context()
    with listening(tmp / "raft-node-01.sock"):
        assert context.socket_path() == tmp / "raft-node-01.sock"
        assert context.call == "raftctl --node node-01"


def test_a_name_that_was_given_is_never_another_ones(places: tuple[Path, Path]) -> None:
    _run, tmp = places
    context = Context()
    context.set("node", "node-0", by_flag=True)
    with listening(tmp / "raft-node-01.sock"), pytest.raises(CommandError, match="No agent node-0"):
        context.socket_path()


def test_without_a_name_one_of_several_agents_is_taken_only_by_the_default_name(
    places: tuple[Path, Path],
) -> None:
    run, tmp = places
    with listening(tmp / "raft-node-01.sock"), listening(tmp / "raft-node-02.sock"):
        with pytest.raises(CommandError, match="No agent node-0") as caught:
            Context().socket_path()
        assert "node-01, node-02" in caught.value.hint
        with listening(run / "node-0.sock"):
            assert Context().socket_path() == run / "node-0.sock"
