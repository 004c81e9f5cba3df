"""Keys and values of exported maps: one text for each, the same bytes on every node."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_agent.machine.export_types import (
    KEY_TYPES,
    VALUE_TYPES,
    FieldError,
    field_type,
    key_type,
    value_type,
)

NAMES = [name.replace("[N]", "[7]") for name in dict.fromkeys((*KEY_TYPES, *VALUE_TYPES))]


@pytest.mark.parametrize(
    ("name", "text", "field"),
    [
        ("u8", b"255", b"\xff"),
        ("u16", b"258", b"\x02\x01"),
        ("u32", b"0", bytes(4)),
        ("u64", b"18446744073709551615", b"\xff" * 8),
        ("bytes[4]", b"ab", b"ab\0\0"),
        ("bytes[2]", "é".encode(), b"\xc3\xa9"),
        ("ipv4", b"203.0.113.5", bytes([203, 0, 113, 5])),
        ("ipv6", b"2001:db8::1", bytes.fromhex("20010db8") + bytes(11) + b"\x01"),
        ("ipv6", b"::", bytes(16)),
        ("ipv6", b"1::", b"\0\x01" + bytes(14)),
        ("ipv4_prefix", b"203.0.113.0/24", b"\x18\0\0\0" + bytes([203, 0, 113, 0])),
        ("ipv4_prefix", b"0.0.0.0/0", bytes(8)),
        ("ipv6_prefix", b"2001:db8::/32", b"\x20\0\0\0" + bytes.fromhex("20010db8") + bytes(12)),
    ],
)
def test_a_text_becomes_the_bytes_that_a_program_looks_up(
    name: str, text: bytes, field: bytes
) -> None:
    kind = field_type(name)
    assert kind.encode(text) == field
    assert len(field) == kind.size
    assert kind.decode(field) == text


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("u8", b"256", "0 to 255"),
        ("u32", b"01", "a number"),
        ("u32", b"", "a number"),
        ("u32", b"+1", "a number"),
        ("u32", b"1_0", "a number"),
        ("u64", b"18446744073709551616", "a number"),
        ("bytes[2]", b"abc", "longer than 2 bytes"),
        ("bytes[2]", b"a\0", "zero byte"),
        ("ipv4", b"203.0.113", "no ipv4 address"),
        ("ipv4", b"203.0.113.05", "no ipv4 address"),
        ("ipv4", b"256.0.0.1", "no ipv4 address"),
        ("ipv6", b"2001:DB8::1", "has to be written as 2001:db8::1"),
        ("ipv6", b"2001:db8:0:0:0:0:0:1", "has to be written as 2001:db8::1"),
        ("ipv6", b"fe80::1%eth0", "no ipv6 address"),
        ("ipv6", b"::ffff:1.2.3.4", "no ipv6 address"),
        ("ipv6", b":::", "no ipv6 address"),
        ("ipv4_prefix", b"203.0.113.5/24", "has to be written as 203.0.113.0/24"),
        ("ipv4_prefix", b"203.0.113.0", "ADDRESS/LENGTH"),
        ("ipv4_prefix", b"203.0.113.0/255.255.255.0", "ADDRESS/LENGTH"),
        ("ipv4_prefix", b"203.0.113.0/33", "up to /32"),
        ("ipv4_prefix", b"203.0.113.0/024", "ADDRESS/LENGTH"),
        ("ipv6_prefix", b"2001:db8::1/64", "has to be written as 2001:db8::/64"),
        ("ipv4", "२०३.0.113.5".encode(), "no ipv4 address"),
    ],
)
def test_another_text_for_the_same_bytes_is_refused(name: str, text: bytes, says: str) -> None:
    with pytest.raises(FieldError, match=says.replace("/", "/")):
        field_type(name).encode(text)


@given(st.binary(min_size=16, max_size=16) | st.integers(0, 15).map(bytes))
def test_an_ipv6_address_is_written_as_the_system_does_but_for_the_dotted_form(raw: bytes) -> None:
    address = raw.ljust(16, b"\0")
    text = field_type("ipv6").decode(address).decode()
    assert ipaddress.IPv6Address(text).packed == address
    system = socket.inet_ntop(socket.AF_INET6, address)
    if "." not in system:
        assert text == system


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_no_two_texts_become_the_same_bytes(name: str, data: st.DataObject) -> None:
    kind = field_type(name)
    alphabet = st.sampled_from([b"0", b"1", b"2", b"a", b"F", b":", b".", b"/", b"\0", b"3", b"::"])
    text = b"".join(data.draw(st.lists(alphabet, max_size=12)))
    try:
        field = kind.encode(text)
    except FieldError:
        return
    assert len(field) == kind.size
    assert kind.decode(field) == text


def test_keys_and_values_have_types_of_their_own() -> None:
    assert key_type("bytes[256]").size == 256
    assert value_type("u8").size == 1
    for name in ("u8", "u16", "bytes[0]", "bytes[257]", "bytes[N]", "text", "bytes[01]"):
        with pytest.raises(FieldError):
            key_type(name)
    for name in ("ipv4", "ipv6_prefix", "bytes[257]", ""):
        with pytest.raises(FieldError):
            value_type(name)
