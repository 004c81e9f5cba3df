"""docs/protocol.md says what the code does, and its client runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from raft_agent import wire
from raft_agent.api import connection, protocol, requests
from raft_agent.machine import leases, sessions, transactions
from tests.unit.cli.served import serving

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "protocol.md").read_text()
PERL = re.search(r"^```perl\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
OPS = {
    match[1]: re.findall(r"`(\w+)`", match[2])
    for match in re.finditer(r"^\| `(\w+)` \| ([^|]*) \| [^|]* \|$", DOCUMENT, re.MULTILINE)
}


@pytest.mark.skipif(shutil.which("perl") is None, reason="no perl on this machine")
def test_the_client_in_perl_puts_and_gets_a_key(tmp_path: Path) -> None:
    assert PERL is not None
    assert len([line for line in PERL[1].splitlines() if line]) <= 25
    script = tmp_path / "client.pl"
    script.write_text(PERL[1])
    with serving(tmp_path / "s") as served:
        for index in (1, 2):
            done = subprocess.run(
                ["perl", str(script), str(served.path)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.stderr == ""
            assert done.stdout == f"index {index}: Hello from Perl\n"
        assert served.host.machine.get("greeting").value == b"Hello from Perl"
        served.call(setattr, served.host, "leader", None)
        done = subprocess.run(
            ["perl", str(script), str(served.path)], capture_output=True, check=False
        )
        assert done.returncode != 0
        assert done.stderr == b"No leader is known at the moment\n"


def test_every_op_is_described_with_all_its_fields() -> None:
    described = {op: fields for op, fields in OPS.items() if op in known_ops()}
    assert described == known_ops()


def test_every_code_is_given_by_something() -> None:
    """One that nobody gives is told to people in vain."""
    root = Path(protocol.__file__).resolve().parents[1]
    sources = [path for path in root.rglob("*.py") if path.name != "errors.py"]
    text = "\n".join(path.read_text() for path in sources)
    unused = [code.name for code in protocol.ErrorCode if f"ErrorCode.{code.name}" not in text]
    assert unused == []


def known_ops() -> dict[str, list[str]]:
    return {
        str(kind.__struct_config__.tag): list(kind.__struct_fields__[1:])
        for kind in protocol.RESULT_TYPES
    }


def test_every_error_code_is_described() -> None:
    codes = set(re.findall(r"^\| `(\w+)` \| [^|]* \|$", DOCUMENT, re.MULTILINE))
    assert codes == {str(code) for code in protocol.ErrorCode}


@pytest.mark.parametrize(
    "limit",
    [
        protocol.MAX_KEY_BYTES,
        protocol.MAX_VALUE_BYTES,
        protocol.MAX_TEXT_BYTES,
        protocol.MAX_REQUESTS_PER_FRAME,
        protocol.MAX_IN_FLIGHT,
        protocol.MAX_STREAMS,
        wire.MAX_BODY_BYTES,
        sessions.MAX_SESSIONS,
        sessions.MAX_RESULTS_OF_A_SESSION,
        sessions.MAX_RESULTS,
        sessions.MAX_ONE_SHOTS,
        sessions.MIN_TTL_MS,
        sessions.MAX_TTL_MS,
        sessions.MAX_READ_BYTES,
        leases.MIN_TTL_MS,
        leases.MAX_TTL_MS,
        leases.MAX_LEASES,
        leases.MAX_KEYS_OF_A_LEASE,
        transactions.MAX_OPERATIONS,
        transactions.MAX_BYTES,
        transactions.MAX_READ_BYTES,
        transactions.MAX_CHANGES,
    ],
)
def test_every_limit_is_described(limit: int) -> None:
    assert f"{limit:,}" in DOCUMENT


def test_the_limits_of_unread_bytes_are_described() -> None:
    for limit in (
        connection.PAUSE_READING_BYTES,
        requests.UNREAD_BYTES,
        connection.DROP_BYTES,
        requests.LIST_BYTES,
    ):
        assert f"{limit >> 20} MiB" in DOCUMENT


def test_the_fields_of_results_are_described() -> None:
    for kind in (
        protocol.WriteResult,
        protocol.KeyValue,
        protocol.MessageItem,
        protocol.KeyEvent,
        protocol.EventItem,
        protocol.Error,
        protocol.HealthResult,
        protocol.HealthMember,
        protocol.MemberListResult,
        protocol.MemberInfo,
        protocol.MembershipResult,
        protocol.SettingInfo,
        protocol.ListResult,
        protocol.TxnResult,
        protocol.OperationResult,
        protocol.LeaseResult,
        protocol.LeaseInfo,
        protocol.VitalsResult,
        protocol.Latency,
    ):
        for field in msgspec.structs.fields(kind):
            assert re.search(rf"\b{field.name}\b", DOCUMENT), f"{kind.__name__}.{field.name}"


def test_the_header_is_described_byte_by_byte() -> None:
    ends = [int(end) for end in re.findall(r"^\| \d+\D?(\d*) \|", DOCUMENT, re.M) if end]
    assert ends[-1] == wire.HEADER_SIZE - 1
    assert f"| {wire.FrameType.CLIENT_REQUEST:d} (requests)" in DOCUMENT
    assert f"{wire.FrameType.CLIENT_REPLY:d} (replies)" in DOCUMENT
    assert f"{wire.FrameType.CLIENT_PUSH:d} (items of streams)" in DOCUMENT


def test_the_words_of_transactions_are_described() -> None:
    for word in (*protocol.Target, *protocol.Relation):
        assert f'"{word}"' in DOCUMENT, word
    for kind in protocol.Operation.__args__:
        assert f'["{kind.__struct_config__.tag}", ' in DOCUMENT, kind
