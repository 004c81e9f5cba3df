"""Bytes that are no certificates: each is refused in words, and none is a surprise."""

from __future__ import annotations

import base64
import contextlib
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_agent.tls.authority import (
    hosts_of,
    make_key,
    make_request,
    read_authority,
    read_certificates,
    read_request,
    read_revocations,
)
from raft_agent.tls.certificate import identity_of
from raft_agent.tls.credentials import Credentials
from raft_agent.tls.errors import CertificateRefused, TlsError
from raft_agent.tls.identity import Identity, Kind, Role
from tests.unit.tls.papers import Office, client, node


@cache
def directory() -> TemporaryDirectory[str]:
    """Gone when the tests have ended."""
    return TemporaryDirectory(prefix="raft-tls-")


@cache
def office() -> Office:
    return Office(Path(directory().name))


@cache
def credentials() -> Credentials:
    found = office()
    found.crl.write_bytes(found.authority.revoke([1, 2]))
    files = found.issue(node("node-01", "192.0.2.7"), crl=True)
    return Credentials(files, Identity(Kind.NODE, "node-01"))


@cache
def originals() -> tuple[bytes, ...]:
    """Certificates (DER) of a node and a client."""
    subjects = (node("node-02", "raft.example", "2001:db8::1"), client("alice", Role.ADMIN))
    return tuple(
        x509.load_pem_x509_certificate(office().sign(subject)).public_bytes(Encoding.DER)
        for subject in subjects
    )


@cache
def texts() -> tuple[bytes, ...]:
    authority = office().authority
    return (
        office().sign(node("node-02")),
        authority.revoke([7]),
        make_request(node("node-03", "192.0.2.3"), make_key()),
        authority.private_key_pem(),
    )


Edits = st.lists(
    st.tuples(st.integers(0, 2000), st.integers(0, 255), st.sampled_from("=+-")),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, edits: list[tuple[int, int, str]]) -> bytes:
    """`data` with some bytes changed, put in or taken out."""
    out = bytearray(data)
    for place, value, kind in edits:
        at = place % (len(out) or 1)
        if kind == "+" or not out:
            out.insert(at, value)
        elif kind == "-":
            del out[at]
        else:
            out[at] = value
    return bytes(out)


@given(st.integers(0, 1), Edits)
@settings(deadline=None, max_examples=400)
def test_a_certificate_is_checked_or_refused_whatever_it_holds(
    which: int, edits: list[tuple[int, int, str]]
) -> None:
    with contextlib.suppress(CertificateRefused):
        credentials().check(edited(originals()[which], edits))


def random_edits(rng: random.Random) -> list[tuple[int, int, str]]:
    """Edits whose bytes are often tags and lengths of DER."""
    values = (0, 1, 2, 3, 4, 5, 6, 12, 19, 48, 49, 0x80, 0x82, 0xA0, 0xFF, rng.randrange(256))
    return [
        (rng.randrange(2000), rng.choice(values), rng.choice("====+-"))
        for _ in range(rng.randint(1, 3))
    ]


@pytest.mark.filterwarnings("ignore")  # the library's, of what it takes all the same
def test_edits_that_make_other_structures_are_refused() -> None:
    rng = random.Random(5)
    accepted = 0
    for _ in range(8000):
        data = edited(rng.choice(originals()), random_edits(rng))
        try:
            credentials().check(data)
        except CertificateRefused:
            continue
        accepted += 1
    assert 0 < accepted < 4000


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=100)
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with contextlib.suppress(CertificateRefused):
        credentials().check(data)


READERS: tuple[Callable[[bytes], object], ...] = (
    lambda pem: [identity_of(item) for item in read_certificates(pem)],
    lambda pem: [item.serial_number for item in read_revocations(pem)],
    lambda pem: (identity_of(read_request(pem)), hosts_of(read_request(pem))),
    lambda pem: read_authority(office().ca.read_bytes(), pem),
)


def in_pem(head: bytes, der: bytes, foot: bytes) -> bytes:
    text = base64.b64encode(der)
    return b"\n".join([head, *(text[at : at + 64] for at in range(0, len(text), 64)), foot, b""])


@pytest.mark.filterwarnings("ignore")
def test_files_of_other_structures_are_refused() -> None:
    rng = random.Random(6)
    taken = 0
    for _ in range(4000):
        which = rng.randrange(4)
        head, *lines, foot = texts()[which].splitlines()
        der = edited(base64.b64decode(b"".join(lines)), random_edits(rng))
        try:
            READERS[which](in_pem(head, der, foot))
        except TlsError:
            continue
        taken += 1
    assert 0 < taken < 2000


@given(st.integers(0, 3), Edits)
@settings(deadline=None, max_examples=400)
def test_a_file_is_read_or_refused_whatever_it_holds(
    which: int, edits: list[tuple[int, int, str]]
) -> None:
    with contextlib.suppress(TlsError):
        READERS[which](edited(texts()[which], edits))
