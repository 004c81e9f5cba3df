"""The types of exported maps' keys and values: from the store's text to the map's bytes and back.

Each has one text, so that no two keys of the store stand for one key of a map: numbers without
leading zeros, addresses as RFC 5952 writes them, prefixes with no bit set behind their length.
Numbers are little endian, like the machines that the object in the kernel is built for; addresses
are in network order, as they stand in packets.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import struct
from collections.abc import Callable

import msgspec

MAX_BYTES_SIZE = 256

_NUMBER = re.compile(rb"0|[1-9][0-9]{0,19}")
_IPV4 = re.compile(r"(0|[1-9][0-9]{0,2})" + r"\.(0|[1-9][0-9]{0,2})" * 3)
_IPV6 = re.compile(r"[0-9A-Fa-f:]{2,39}")
_BYTES = re.compile(r"bytes\[([1-9][0-9]{0,2})\]")

# struct bpf_lpm_trie_key of linux/bpf.h: the length in bits in the host's order, then the address.
_PREFIX_LENGTH = struct.Struct("<I")


class FieldError(ValueError):
    """The text is nothing of this type; the sentence says what would be right."""


class FieldType(msgspec.Struct, frozen=True):
    """`size` of a map's field in bytes. `encode`: from the text, raises FieldError; `decode`: the
    text of a field of that size. `is_prefix`: what a trie's keys are, and nothing else can be.
    """

    name: str
    size: int
    encode: Callable[[bytes], bytes]
    decode: Callable[[bytes], bytes]
    is_prefix: bool = False


def _number(name: str, size: int) -> FieldType:
    highest = (1 << 8 * size) - 1

    def encode(text: bytes) -> bytes:
        if _NUMBER.fullmatch(text) is not None:
            number = int(text)
            if number <= highest:
                return number.to_bytes(size, "little")
        raise FieldError(f"{_shown(text)} is no {name}: a number from 0 to {highest}")

    def decode(field: bytes) -> bytes:
        return str(int.from_bytes(field, "little")).encode()

    return FieldType(name, size, encode, decode)


def _bytes(name: str, size: int) -> FieldType:
    def encode(text: bytes) -> bytes:
        if len(text) > size:
            raise FieldError(f"{_shown(text)} is longer than {size} bytes")
        if text.endswith(b"\0"):
            raise FieldError(f"{_shown(text)} ends with a zero byte, which only fills {name} up")
        return text.ljust(size, b"\0")

    return FieldType(name, size, encode, lambda field: field.rstrip(b"\0"))


def _ipv4_text(address: bytes) -> str:
    return ".".join(map(str, address))


def _ipv4_bytes(text: str) -> bytes | None:
    found = _IPV4.fullmatch(text)
    if found is None:
        return None
    try:
        return bytes(map(int, found.groups()))
    except ValueError:
        return None  # a part is over 255


def _ipv6_text(address: bytes) -> str:
    """As RFC 5952 has it in section 4, always in groups: Python's own text of some addresses is
    another one since 3.13, and all nodes have to agree.
    """
    groups = [f"{group:x}" for group in struct.unpack(">8H", address)]
    start, length = 0, 1
    for at in range(8):
        run = next((n for n in range(8 - at) if groups[at + n] != "0"), 8 - at)
        if run > length:
            start, length = at, run
    if length == 1:
        return ":".join(groups)
    return f"{':'.join(groups[:start])}::{':'.join(groups[start + length :])}"


def _ipv6_bytes(text: str) -> bytes | None:
    # Neither zones nor the dotted form: whether they are read depends on Python's version.
    if _IPV6.fullmatch(text) is None:
        return None
    try:
        return ipaddress.IPv6Address(text).packed
    except ValueError:
        return None


class _Family(msgspec.Struct, frozen=True):
    """`parse` gives None for what is no address, and takes other forms than `text` writes too."""

    name: str
    size: int
    parse: Callable[[str], bytes | None]
    text: Callable[[bytes], str]

    def read(self, text: bytes) -> bytes | None:
        try:
            return self.parse(text.decode("ascii"))
        except UnicodeDecodeError:
            return None


_V4 = _Family("ipv4", 4, _ipv4_bytes, _ipv4_text)
_V6 = _Family("ipv6", 16, _ipv6_bytes, _ipv6_text)


def _address(family: _Family) -> FieldType:
    def encode(text: bytes) -> bytes:
        address = family.read(text)
        if address is None:
            raise FieldError(f"{_shown(text)} is no {family.name} address")
        if family.text(address).encode() != text:
            raise FieldError(f"{_shown(text)} has to be written as {family.text(address)}")
        return address

    return FieldType(family.name, family.size, encode, lambda field: family.text(field).encode())


def _prefix(family: _Family) -> FieldType:
    name, bits = f"{family.name}_prefix", 8 * family.size

    def encode(text: bytes) -> bytes:
        address_text, _, length_text = text.partition(b"/")
        address = family.read(address_text)
        if address is None or _NUMBER.fullmatch(length_text) is None or int(length_text) > bits:
            raise FieldError(f"{_shown(text)} is no {name}: ADDRESS/LENGTH, up to /{bits}")
        length = int(length_text)
        kept = int.from_bytes(address, "big") >> (bits - length) << (bits - length)
        network = kept.to_bytes(family.size, "big")
        wanted = f"{family.text(network)}/{length}"
        if wanted.encode() != text:
            raise FieldError(f"{_shown(text)} has to be written as {wanted}")
        return _PREFIX_LENGTH.pack(length) + network

    def decode(field: bytes) -> bytes:
        (length,) = _PREFIX_LENGTH.unpack_from(field)
        return f"{family.text(field[_PREFIX_LENGTH.size :])}/{length}".encode()

    return FieldType(name, _PREFIX_LENGTH.size + family.size, encode, decode, is_prefix=True)


_FIXED = {
    field.name: field
    for field in (
        _number("u8", 1),
        _number("u16", 2),
        _number("u32", 4),
        _number("u64", 8),
        _address(_V4),
        _address(_V6),
        _prefix(_V4),
        _prefix(_V6),
    )
}
KEY_TYPES = ("u32", "u64", "bytes[N]", "ipv4", "ipv6", "ipv4_prefix", "ipv6_prefix")
VALUE_TYPES = ("u8", "u16", "u32", "u64", "bytes[N]")


@functools.cache
def field_type(name: str) -> FieldType:
    """Raises FieldError when there is no such type."""
    fixed = _FIXED.get(name)
    if fixed is not None:
        return fixed
    found = _BYTES.fullmatch(name)
    if found is None or int(found[1]) > MAX_BYTES_SIZE:
        raise FieldError(f'There is no type "{name[:40]}"; bytes[N] has 1 to {MAX_BYTES_SIZE}')
    return _bytes(name, int(found[1]))


def key_type(name: str) -> FieldType:
    """Raises FieldError when keys can't be of this type."""
    return _one_of(KEY_TYPES, "A key", name)


def value_type(name: str) -> FieldType:
    """Raises FieldError when values can't be of this type."""
    return _one_of(VALUE_TYPES, "A value", name)


def _one_of(names: tuple[str, ...], what: str, name: str) -> FieldType:
    if name not in names and not (name.startswith("bytes[") and name != "bytes[N]"):
        raise FieldError(f'{what} is one of {", ".join(names)}, not "{name[:40]}"')
    return field_type(name)


def _shown(text: bytes) -> str:
    return ascii(text[:60])[1:] + ("…" if len(text) > 60 else "")
