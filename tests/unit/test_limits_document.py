"""docs/limits.md says the numbers that the code has."""

from __future__ import annotations

from pathlib import Path

import pytest

from raft_agent import wire
from raft_agent.api import connection, limits, protocol, requests, salvage
from raft_agent.config.sources import MAX_FILE_BYTES
from raft_agent.consensus import batch
from raft_agent.http import complaints
from raft_agent.http import limits as http_limits
from raft_agent.machine import leases, sessions
from raft_agent.storage.snapshot_format import MAX_BLOCK_BYTES
from raft_agent.transport import codec, handshake, rejects, strangers, unknown
from raft_agent.transport import connection as peers

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "limits.md").read_text()
SECTIONS = dict(
    part.split("\n", 1) for part in TEXT.split("\n## ")[1:]
)  # by the words of its heading
MIB = 1 << 20

ROWS = [
    ("One client", "body of a frame", f"{wire.MAX_BODY_BYTES:,} bytes"),
    ("One client", "requests in a frame", f"{protocol.MAX_REQUESTS_PER_FRAME:,}"),
    ("One client", "JSON in a frame, commas outside of texts", f"{salvage._MAX_COMMAS:,}"),
    ("One client", "a frame that is not there in full", f"{limits.HALF_FRAME_S:g} s"),
    ("One client", "requests in flight", f"{protocol.MAX_IN_FLIGHT:,}"),
    ("One client", "streams (watches, events)", f"{protocol.MAX_STREAMS:,}"),
    (
        "One client",
        "unread replies and items",
        f"{connection.PAUSE_READING_BYTES // MIB} MiB",
    ),
    ("One client", "", f"{requests.UNREAD_BYTES // MIB} MiB"),
    ("One client", "", f"{connection.DROP_BYTES // MIB} MiB"),
    ("One client", "key", f"{protocol.MAX_KEY_BYTES:,} bytes"),
    ("One client", "value", f"{protocol.MAX_VALUE_BYTES:,} bytes"),
    ("One client", "text of a message", f"{protocol.MAX_TEXT_BYTES:,} bytes"),
    ("All clients of a node together", "connections", f"{limits.MAX_CONNECTIONS:,}, "),
    ("All clients of a node together", "connections", f"{limits._OTHER_FILES} files"),
    (
        "All clients of a node together",
        "connections",
        f"{limits.MAX_REFUSED_CONNECTIONS} more at most",
    ),
    (
        "All clients of a node together",
        "a refused client that asks nothing",
        f"{limits.REFUSED_S:g} s",
    ),
    (
        "All clients of a node together",
        "requests in flight",
        f"{limits.MAX_IN_FLIGHT_IN_ALL:,}",
    ),
    ("All clients of a node together", "streams", f"{limits.MAX_STREAMS_IN_ALL:,}"),
    (
        "All clients of a node together",
        "unread replies and items",
        f"{limits.MAX_UNREAD_IN_ALL_BYTES:,} bytes",
    ),
    (
        "All clients of a node together",
        "bytes of frames that are not there in full",
        f"{limits.MAX_HALF_FRAMES_BYTES:,}",
    ),
    (
        "Peers and strangers on the listen address",
        "size of a handshake",
        f"{handshake.MAX_HELLO_BYTES:,} bytes",
    ),
    (
        "Peers and strangers on the listen address",
        "connections without a finished handshake",
        f"{strangers.MAX_STRANGERS:,}, of one host {strangers.MAX_OF_A_HOST}",
    ),
    (
        "Peers and strangers on the listen address",
        "connected nodes that are no members",
        f"{unknown.MAX_UNKNOWN}",
    ),
    (
        "Peers and strangers on the listen address",
        "a frame that is not there in full",
        f"{peers.HALF_FRAME_S:g} s",
    ),
    (
        "Peers and strangers on the listen address",
        "what waits to be sent to a peer",
        f"{peers.SEND_LIMIT_BYTES // MIB} MiB",
    ),
    (
        "Peers and strangers on the listen address",
        "entries in a batch",
        f"{batch.MAX_ENTRIES:,}",
    ),
    (
        "Peers and strangers on the listen address",
        "payload of a batch",
        f"{batch.MAX_PAYLOAD_BYTES:,} bytes",
    ),
    (
        "Peers and strangers on the listen address",
        "names in a first start's messages",
        f"{codec.MAX_NAMES:,}",
    ),
    ("HTTP", "connections", f"{http_limits.MAX_CONNECTIONS}"),
    ("HTTP", "open status pages", f"{http_limits.MAX_STREAMS}"),
    ("HTTP", "time until the first request", f"{http_limits._FIRST_REQUEST_S:g} s"),
    (
        "HTTP",
        "lines of the log about requests that are no HTTP",
        f"one every {complaints.INTERVAL_S:g} s",
    ),
    ("Files", "`raft.toml`", f"{MAX_FILE_BYTES:,} bytes"),
    ("Files", "block of a snapshot", f"{MAX_BLOCK_BYTES:,} bytes"),
]


@pytest.mark.parametrize(("section", "what", "limit"), ROWS, ids=lambda text: text[:30])
def test_a_limit_is_what_the_document_says(section: str, what: str, limit: str) -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in SECTIONS[section].splitlines()
        if line.startswith("|")
    ]
    assert [row for row in rows if row[0] == what and limit in " ".join(row[1:])], (what, limit)


def test_the_lines_of_the_log_are_what_the_document_says() -> None:
    assert f"at most {limits.MAX_LINES} lines in ten seconds" in TEXT
    assert limits.LINES_INTERVAL_S == 10
    assert f"reason every {rejects.LOG_INTERVAL_S:g} seconds" in TEXT


def test_the_limits_of_the_state_are_what_the_document_says() -> None:
    state = SECTIONS["The cluster's state"]
    assert f"Leases: {leases.MAX_LEASES:,}, of {leases.MAX_KEYS_OF_A_LEASE:,} keys each" in state
    assert f"Sessions: {sessions.MAX_SESSIONS:,}." in state
