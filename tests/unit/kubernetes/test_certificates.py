"""Certificates in Secrets: made, renewed in time, and replaced without anybody's being shut out."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509

from raft_agent.tls.authority import has_signed, make_authority, read_certificates
from raft_agent.tls.certificate import identity_of
from raft_agent.tls.errors import TlsError
from raft_agent.tls.identity import Kind, Role
from raft_operator import certificates
from raft_operator.certificates import CERTIFICATE, KEY, SETTLE

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
MEMBERS = {"kv-0": ("kv-client",), "kv-1": ("kv-client",)}
DAY = datetime.timedelta(days=1)


def authority() -> dict[str, bytes]:
    return certificates.next_authority({}, None, "raft space/kv", NOW)


def made(found: dict[str, bytes], days: int = 90) -> dict[str, bytes]:
    return certificates.next_certificates({}, found, MEMBERS, days, NOW)


def certificate(files: dict[str, bytes], name: str = "kv-0") -> x509.Certificate:
    return read_certificates(files[f"{name}.pem"])[0]


def signer(files: dict[str, bytes], name: str = CERTIFICATE) -> x509.Certificate:
    return read_certificates(files[name])[0]


def test_every_member_gets_a_certificate_and_a_key_of_its_own() -> None:
    found = authority()
    files = made(found)
    own = {f"kv-{number}{end}" for number in (0, 1) for end in (".pem", "-key.pem")}
    assert files.keys() == {"ca.pem", *own}
    assert files["kv-0-key.pem"] != files["kv-1-key.pem"]
    identity = identity_of(certificate(files))
    assert (identity.kind, identity.name) == (Kind.NODE, "kv-0")
    assert has_signed(signer(found), certificate(files))


def test_the_operators_own_certificate_is_an_administrators() -> None:
    pem, _ = certificates.admin_certificate(authority(), NOW)
    identity = identity_of(read_certificates(pem)[0])
    assert (identity.kind, identity.role) == (Kind.CLIENT, Role.ADMIN)
    assert certificates.is_fresh(pem, NOW)
    assert not certificates.is_fresh(pem, NOW + DAY + datetime.timedelta(minutes=10))


def test_what_a_clock_that_was_ahead_has_made_is_made_anew() -> None:
    ahead = NOW + 70 * DAY
    found = authority()
    files = certificates.next_certificates({}, found, MEMBERS, 90, ahead)
    pem, _ = certificates.admin_certificate(found, ahead)
    assert certificate(files).not_valid_before_utc > NOW
    assert not certificates.is_fresh(pem, NOW)
    again = certificates.next_certificates(files, found, MEMBERS, 90, NOW)
    assert certificate(again).not_valid_before_utc <= NOW
    assert certificates.next_certificates(again, found, MEMBERS, 90, NOW) == again


def test_a_step_of_an_authoritys_replacement_that_a_clock_ahead_has_dated_waits_anew() -> None:
    found = authority()
    given = authority()
    incoming = certificates.next_authority(found, given, "x", NOW + 2 * SETTLE)
    assert "incoming.crt" in incoming
    ahead = {**incoming, "since": (NOW + 300 * DAY).isoformat().encode()}
    dated = certificates.next_authority(ahead, given, "x", NOW)
    assert dated["since"] == NOW.isoformat().encode()
    signing = certificates.next_authority(dated, given, "x", NOW + SETTLE)
    assert signing[CERTIFICATE] == given[CERTIFICATE]


def test_nothing_changes_while_nothing_is_due() -> None:
    found = authority()
    files = made(found)
    later = NOW + 50 * DAY
    assert certificates.next_authority(found, None, "x", later) == found
    assert certificates.next_certificates(files, found, MEMBERS, 90, later) == files


def test_a_certificate_is_renewed_when_a_third_of_its_time_is_left() -> None:
    found = authority()
    files = made(found)
    later = certificates.next_certificates(files, found, MEMBERS, 90, NOW + 61 * DAY)
    assert later["kv-0.pem"] != files["kv-0.pem"]
    assert later["ca.pem"] == files["ca.pem"]


def test_a_new_member_gets_one_and_the_others_keep_theirs() -> None:
    found = authority()
    files = made(found)
    grown = certificates.next_certificates(files, found, {**MEMBERS, "kv-2": ()}, 90, NOW)
    assert grown.items() > files.items()
    assert "kv-2.pem" in grown


@pytest.mark.parametrize("damage", ["hosts", "certificate", "key"])
def test_what_does_not_fit_any_more_is_made_anew(damage: str) -> None:
    found = authority()
    files = made(found)
    members = dict(MEMBERS)
    if damage == "hosts":
        members["kv-0"] = ("elsewhere",)
    elif damage == "certificate":
        files["kv-0.pem"] = b"no certificate"
    else:
        del files["kv-0-key.pem"]
    mended = certificates.next_certificates(files, found, members, 90, NOW)
    assert identity_of(certificate(mended)).name == "kv-0"
    assert mended["kv-1.pem"] == files["kv-1.pem"]


def test_an_authority_is_replaced_in_steps_that_shut_nobody_out() -> None:
    first = authority()
    files = made(first, days=3650)
    late = NOW + 9 * 365 * DAY + 30 * DAY
    both = certificates.next_authority(first, None, "x", late)
    assert both[CERTIFICATE] == first[CERTIFICATE]
    trusted = certificates.next_certificates(files, both, MEMBERS, 3650, late)
    assert len(read_certificates(trusted["ca.pem"])) == 2
    assert certificates.next_authority(both, None, "x", late + SETTLE / 2) == both
    swapped = certificates.next_authority(both, None, "x", late + SETTLE)
    assert swapped[CERTIFICATE] == both["incoming.crt"]
    signed = certificates.next_certificates(trusted, swapped, MEMBERS, 90, late + SETTLE)
    assert has_signed(signer(swapped), certificate(signed))
    assert len(read_certificates(signed["ca.pem"])) == 2
    alone = certificates.next_authority(swapped, None, "x", late + 2 * SETTLE)
    assert len(read_certificates(certificates.trusted(alone))) == 1
    assert certificates.trusted(alone) == swapped[CERTIFICATE]


def given(name: str) -> dict[str, bytes]:
    found = make_authority(name)
    return {CERTIFICATE: found.certificate_pem(), KEY: found.private_key_pem()}


def test_a_given_authority_signs_and_another_one_takes_its_place_in_steps() -> None:
    ours, other = given("ours"), given("other")
    first = certificates.next_authority({}, ours, "x", NOW)
    assert first[CERTIFICATE] == ours[CERTIFICATE]
    both = certificates.next_authority(first, other, "x", NOW)
    assert both[CERTIFICATE] == ours[CERTIFICATE]
    assert other[CERTIFICATE] in certificates.trusted(both)
    assert (
        certificates.next_authority(both, other, "x", NOW + SETTLE)[CERTIFICATE]
        == (other[CERTIFICATE])
    )


def test_a_given_authority_that_can_not_sign_is_refused_in_words() -> None:
    with pytest.raises(TlsError, match=r"needs tls\.crt and tls\.key"):
        certificates.next_authority({}, {CERTIFICATE: b""}, "x", NOW)
    with pytest.raises(TlsError, match="can't be read"):
        certificates.next_authority({}, {CERTIFICATE: b"x", KEY: b"y"}, "x", NOW)
