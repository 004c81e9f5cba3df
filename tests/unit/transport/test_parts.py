"""The small parts of the transport: addresses, the log of refusals."""

from __future__ import annotations

import logging

import pytest

from raft_agent.transport import rejects
from raft_agent.transport.address import format_address, parse_address
from raft_agent.transport.rejects import RejectLog


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("192.168.105.11:5555", "192.168.105.11", 5555),
        ("[::1]:5555", "::1", 5555),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
        ("node-01.example.org:65535", "node-01.example.org", 65535),
        ("localhost:0", "localhost", 0),
    ],
)
def test_an_address_is_a_host_and_a_port(address: str, host: str, port: int) -> None:
    assert parse_address(address) == (host, port)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("", "not of the form host:port"),
        ("localhost", "not of the form host:port"),
        (":5555", "not of the form host:port"),
        ("[]:5555", "not of the form host:port"),
        ("::1:5555", "write an IPv6 address as"),
        ("[::1:5555", "write an IPv6 address as"),
        ("localhost:", "no port number"),
        ("localhost:65536", "no port number"),
        ("localhost:-1", "no port number"),
        ("localhost:٣", "no port number"),
        ("localhost:http", "no port number"),
    ],
)
def test_a_malformed_address_is_refused_with_the_right_form(address: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_address(address)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (("10.0.0.1", 80), "10.0.0.1:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        (None, "unknown address"),
    ],
)
def test_a_socket_name_is_written_like_an_address(name: object, text: str) -> None:
    assert format_address(name) == text


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def texts(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> tuple[RejectLog, Clock]:
    caplog.set_level(logging.WARNING, "raft.transport")
    clock = Clock()
    return RejectLog(clock), clock


def test_each_kind_of_refusal_is_logged_once_per_host_and_interval(
    log: tuple[RejectLog, Clock], caplog: pytest.LogCaptureFixture
) -> None:
    rejected, clock = log
    for _ in range(3):
        rejected.record("magic", "10.0.0.1", "first")
    rejected.record("type", "10.0.0.1", "second")
    rejected.record("magic", "10.0.0.2", "third")
    clock.now_s = rejects.LOG_INTERVAL_S
    rejected.record("magic", "10.0.0.1", "fourth")
    assert texts(caplog) == ["first", "second", "third", "fourth (and 2 more like it)"]
    assert rejected.counts == {"magic": 5, "type": 1}


def test_many_hosts_cannot_flood_the_log(
    log: tuple[RejectLog, Clock], caplog: pytest.LogCaptureFixture
) -> None:
    rejected, clock = log
    for number in range(2 * rejects.MAX_REMEMBERED):
        rejected.record("magic", f"host {number}", "nonsense")
    assert len(caplog.records) == rejects.MAX_REMEMBERED
    clock.now_s = rejects.LOG_INTERVAL_S
    rejected.record("magic", "one more", "nonsense again")
    assert texts(caplog)[-1] == "nonsense again"
    assert rejected.counts == {"magic": 2 * rejects.MAX_REMEMBERED + 1}
