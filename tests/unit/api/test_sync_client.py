"""The blocking client, against a real server in a thread and against what is no agent."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raft_agent import wire
from raft_agent.api import protocol
from raft_agent.api.client import AgentNotReachable, OutcomeUnknown, RequestFailed, SyncClient
from raft_agent.api.protocol import ErrorCode
from tests.unit.cli.served import Served, serving

PUT = protocol.Put(1, "k", b"v")
GET = protocol.Get(1, "k")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "s") as node:
        yield node


@contextmanager
def answering(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Something at `path` that takes one connection and does what `answer` does with it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield str(path)
        thread.join()


def test_a_request_returns_its_result(served: Served) -> None:
    with SyncClient(str(served.path)) as client:
        assert client.request(PUT) == protocol.WriteResult(1, 1, 1, 0)
        assert client.request(GET) == protocol.KeyValue("k", b"v", 1, 1, 1)
        assert client.request(protocol.Cancel(1, 5)) is None
        assert client.request(protocol.Status(1)).node_id == "node-01"


def test_a_refusal_carries_what_the_agent_said_and_the_connection_goes_on(served: Served) -> None:
    served.call(setattr, served.host, "leader", "node-02")
    with SyncClient(str(served.path)) as client:
        with pytest.raises(RequestFailed, match="Not leader - send to leader node") as refused:
            client.request(PUT)
        assert refused.value.code is ErrorCode.NOT_LEADER
        assert refused.value.leader == "node-02"
        assert refused.value.hint == "Send from leader node: node-02"
        assert client.request(protocol.Status(1)).leader == "node-02"


def test_a_write_is_numbered_and_waits_for_a_leader_only_when_it_is_patient(
    served: Served,
) -> None:
    with SyncClient(str(served.path), timeout_s=20) as client:
        assert client.write(PUT).revision == 1
        assert client.write(protocol.LeaderTransfer(1)).leader == "node-01"
        served.call(setattr, served.host, "leader", None)
        with pytest.raises(RequestFailed, match="No leader"):
            client.write(PUT, is_patient=False)
        elected = threading.Timer(0.2, served.call, (setattr, served.host, "leader", "node-01"))
        elected.start()
        assert client.write(PUT).revision == 2
        elected.join()


def test_an_impatient_write_that_did_not_leave_is_not_tried_again(served: Served) -> None:
    with SyncClient(str(served.path), timeout_s=1000) as client:
        served.stop()
        client.close()
        with pytest.raises(AgentNotReachable):
            client.write(PUT, is_patient=False)


def test_many_requests_travel_together_and_come_back_in_order(served: Served) -> None:
    with SyncClient(str(served.path)) as client:
        puts = [protocol.Put(number, f"k{number}", b"x" * 500) for number in range(5000)]
        results = client.request_many(puts)
        assert [result.revision for result in results] == list(range(1, 5001))
        gets = [protocol.Get(number, f"k{number}") for number in reversed(range(5000))]
        keys = [found.key for found in client.request_many(gets)]
        assert keys == [get.key for get in gets]
        assert client.request_many([]) == []
    assert served.host.batches < 100


def test_one_failure_among_many_is_raised_after_the_others_were_answered(served: Served) -> None:
    with SyncClient(str(served.path)) as client:
        with pytest.raises(RequestFailed, match="absent"):
            client.request_many([protocol.Put(1, "k", b"", 7), protocol.Put(2, "k", b"v")])
        assert client.request(GET).value == b"v"


def test_ids_that_are_the_same_are_refused(served: Served) -> None:
    with SyncClient(str(served.path)) as client, pytest.raises(ValueError, match="same id"):
        client.request_many([PUT, GET])


def test_a_request_that_fits_no_frame_is_refused_before_it_is_sent(served: Served) -> None:
    with SyncClient(str(served.path)) as client:
        with pytest.raises(RequestFailed) as refused:
            client.request(protocol.Put(1, "k", bytes(33 << 20)))
        assert refused.value.code is ErrorCode.TOO_LARGE
        assert client.request(protocol.Status(1)).last_applied == 0


def test_a_stream_gives_its_start_and_then_its_items(served: Served) -> None:
    with SyncClient(str(served.path)) as client, SyncClient(str(served.path)) as writer:
        stream = client.stream(protocol.WatchKeys(7, "k", True))
        assert next(stream) == protocol.StreamStarted(0)
        writer.request_many([protocol.Put(number, f"k{number}", b"v") for number in range(3)])
        assert [next(stream).key for _ in range(3)] == ["k0", "k1", "k2"]
        writer.request(protocol.Put(1, "k", b"\x00"))
        assert next(stream) == protocol.KeyEvent("put", "k", b"\x00", 4, 4)


def test_items_that_come_with_the_start_of_a_stream_are_not_lost(served: Served) -> None:
    with SyncClient(str(served.path)) as client:
        client.request_many([protocol.Send(number, str(number)) for number in range(2000)])
        stream = client.stream(protocol.WatchMessages(1, 0))
        assert next(stream) == protocol.StreamStarted(0)
        assert [next(stream).text for _ in range(2000)] == [str(number) for number in range(2000)]


def test_a_refused_stream_raises(served: Served) -> None:
    with SyncClient(str(served.path)) as client:
        next(client.stream(protocol.WatchKeys(2, "k")))
        with pytest.raises(RequestFailed, match="belongs to a stream"):
            next(client.stream(protocol.WatchKeys(2, "k")))


def test_a_stream_ends_with_the_agents_reason_when_the_agent_ends(served: Served) -> None:
    with SyncClient(str(served.path)) as client:
        stream = client.stream(protocol.Events(1, 0, True))
        next(stream)
        served.stop()
        with pytest.raises(RequestFailed) as ended:
            next(stream)
        assert ended.value.code is ErrorCode.SHUTTING_DOWN


def test_nobody_at_the_socket_is_said_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(AgentNotReachable, match=f"{tmp_path}/s: No such file"):
        SyncClient(str(tmp_path / "s"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    with pytest.raises(AgentNotReachable, match="refused"):
        SyncClient(str(tmp_path / "dead"))


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (PUT, OutcomeUnknown),
        (protocol.Send(1, "x"), OutcomeUnknown),
        (protocol.LeaderTransfer(1), OutcomeUnknown),
        (GET, AgentNotReachable),
        (protocol.Status(1), AgentNotReachable),
    ],
)
def test_no_answer_leaves_the_outcome_of_writes_open_and_only_of_those(
    served: Served, request_: Any, error: type[Exception]
) -> None:
    def hold(_self: Any, *_arguments: Any) -> None: ...

    for method in ("propose", "read_barrier", "transfer_leadership"):
        served.call(setattr, served.host, method, hold)
    if not isinstance(request_, protocol.Status):
        with (
            SyncClient(str(served.path), timeout_s=0.5) as client,
            pytest.raises(error, match=r"no answer from .* within 0.5 s"),
        ):
            client.request(request_)
    path = served.path.with_name("closes")
    with (
        answering(path, lambda connection: connection.recv(10_000) and None) as closing,
        SyncClient(closing) as client,
        pytest.raises(error, match="closed the connection"),
    ):
        client.request(request_)


def test_an_answer_of_unknown_outcome_is_raised_as_one(served: Served) -> None:
    served.call(setattr, served.host, "leader", "node-02")
    served.call(setattr, served.host, "forward", lambda _request, done: done(b"garbage"))
    with SyncClient(str(served.path)) as client, pytest.raises(OutcomeUnknown):
        client.request(protocol.Put(1, "k", b"", -1, True))


def test_a_frame_that_the_agent_did_not_take_in_full_has_changed_nothing(tmp_path: Path) -> None:
    done = threading.Event()
    with answering(tmp_path / "s", lambda _connection: done.wait(20) and None) as path:
        with (
            SyncClient(path, timeout_s=0.1) as client,
            pytest.raises(AgentNotReachable, match="timed out"),
        ):
            client.request(protocol.Put(1, "k", bytes(8 << 20)))
        done.set()


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        wire.encode(wire.FrameType.CLIENT_REPLY, b"garbage"),
    ],
)
def test_what_is_no_agent_is_named_so(tmp_path: Path, data: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(data)

    with (
        answering(tmp_path / "s", answer) as path,
        SyncClient(path) as client,
        pytest.raises(AgentNotReachable, match="is no agent"),
    ):
        client.request(GET)


def test_importing_it_imports_nothing_heavy() -> None:
    script = (
        "import sys, raft_agent.api.client as c; c.SyncClient; "
        "print([m for m in ('asyncio','logging','uvloop','raft_agent.machine.machine',"
        "'concurrent.futures','tempfile','subprocess') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_client_module_knows_what_it_offers() -> None:
    from raft_agent.api import client  # noqa: PLC0415

    for name in client.__all__:
        assert getattr(client, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        client.Nothing  # noqa: B018
