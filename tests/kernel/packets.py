"""TCP packets with every kind of header that may stand in front."""

from __future__ import annotations

import ipaddress
import socket
import struct

from raft_agent.kernel.layout import FlowKey

PEER = ipaddress.ip_address("192.0.2.7")
US = ipaddress.ip_address("192.0.2.1")
PEER6 = ipaddress.ip_address("2001:db8::7")
US6 = ipaddress.ip_address("2001:db8::1")
PEER_PORT = 40_000
OUR_PORT = 5555

FIN, SYN, RST, ACK = 1, 2, 4, 16

_MACS = bytes.fromhex("020000000001020000000002")
_IP4, _IP6, _VLAN, _QINQ = 0x0800, 0x86DD, 0x8100, 0x88A8
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION = 0, 43, 44, 51, 60


def key(*, ip6: bool = False) -> FlowKey:
    """The flow that the packets of this module belong to, on the host that `US` is."""
    return FlowKey(US6 if ip6 else US, OUR_PORT, PEER6 if ip6 else PEER, PEER_PORT)


def tcp(
    payload: bytes = b"",
    *,
    seq: int = 0,
    flags: int = ACK,
    source: int = PEER_PORT,
    target: int = OUR_PORT,
    options: bytes = b"",
) -> bytes:
    """A TCP segment; `options` must be a multiple of four bytes."""
    words = 5 + len(options) // 4
    head = struct.pack(
        "!HHIIBBHHH", source, target, seq % (1 << 32), 1, words << 4, flags, 1000, 0, 0
    )
    return head + options + payload


def ip4(
    segment: bytes,
    *,
    options: bytes = b"",
    fragment: int = 0,
    protocol: int = 6,
    source: bytes = PEER.packed,
) -> bytes:
    """An IPv4 packet to us, from the peer unless the test says otherwise."""
    words = 5 + len(options) // 4
    head = struct.pack(
        *("!BBHHHBBH4s4s", 0x40 | words, 0, words * 4 + len(segment), 1, fragment),
        *(64, protocol, 0, source, US.packed),
    )
    return head + options + segment


def ip6(segment: bytes, *extensions: tuple[int, bytes], protocol: int = 6) -> bytes:
    """An IPv6 packet from the peer to us; the second byte of an extension is its length field."""
    kinds = [kind for kind, _ in extensions] + [protocol]
    body = b"".join(bytes([kinds[place]]) + data for place, (_, data) in enumerate(extensions, 1))
    head = struct.pack(
        "!IHBB16s16s", 6 << 28, len(body + segment), kinds[0], 64, PEER6.packed, US6.packed
    )
    return head + body + segment


def ethernet(packet: bytes, *vlans: int) -> bytes:
    """A frame around an IP packet, with VLAN tags of these types in front of it."""
    kind = _IP6 if packet[0] >> 4 == 6 else _IP4
    kinds = [*vlans, kind]
    tags = b"".join(struct.pack("!HH", 100, following) for following in kinds[1:])
    return _MACS + struct.pack("!H", kinds[0]) + tags + packet


def _extension(words: int = 0) -> bytes:
    return bytes([words]) + bytes(6 + 8 * words)


def wrappings() -> dict[str, tuple[bool, object]]:
    """By name: whether it is IPv6, and a function that puts the headers around a TCP segment."""
    fragment_first = bytes([0]) + struct.pack("!HI", 1, 7)
    return {
        "IPv4": (False, lambda s: ethernet(ip4(s))),
        "IPv4 with options": (False, lambda s: ethernet(ip4(s, options=bytes([1] * 8)))),
        "IPv4 with all options": (False, lambda s: ethernet(ip4(s, options=bytes([1] * 40)))),
        "IPv4 first fragment": (False, lambda s: ethernet(ip4(s, fragment=0x2000))),
        "IPv4 padded": (False, lambda s: ethernet(ip4(s)) + bytes(46)),
        "VLAN": (False, lambda s: ethernet(ip4(s), _VLAN)),
        "QinQ": (False, lambda s: ethernet(ip4(s), _QINQ, _VLAN)),
        "VLAN IPv6": (True, lambda s: ethernet(ip6(s), _VLAN)),
        "IPv6": (True, lambda s: ethernet(ip6(s))),
        "IPv6 hop-by-hop": (True, lambda s: ethernet(ip6(s, (_HOP_BY_HOP, _extension())))),
        "IPv6 routing": (True, lambda s: ethernet(ip6(s, (_ROUTING, _extension(2))))),
        "IPv6 destination": (True, lambda s: ethernet(ip6(s, (_DESTINATION, _extension(1))))),
        "IPv6 first fragment": (True, lambda s: ethernet(ip6(s, (_FRAGMENT, fragment_first)))),
        "IPv6 authentication": (
            True,
            lambda s: ethernet(ip6(s, (_AUTHENTICATION, bytes([4]) + bytes(22)))),
        ),
        "IPv6 four extensions": (
            True,
            lambda s: ethernet(
                ip6(
                    s,
                    (_HOP_BY_HOP, _extension()),
                    (_DESTINATION, _extension(3)),
                    (_ROUTING, _extension(1)),
                    (_FRAGMENT, fragment_first),
                )
            ),
        ),
    }


def foreign(payload: bytes) -> dict[str, bytes]:
    """Packets that are none of ours, whatever they look like."""
    later = bytes([0]) + struct.pack("!HI", 8 << 3, 7)
    return {
        "another port": ethernet(ip4(tcp(payload, source=1, target=2))),
        "another port, IPv6": ethernet(ip6(tcp(payload, source=1, target=2))),
        "UDP on our port": ethernet(ip4(tcp(payload), protocol=socket.IPPROTO_UDP)),
        "UDP on our port, IPv6": ethernet(ip6(tcp(payload), protocol=socket.IPPROTO_UDP)),
        "a later fragment": ethernet(ip4(tcp(payload), fragment=100)),
        "a later fragment, IPv6": ethernet(ip6(tcp(payload), (_FRAGMENT, later))),
        "ARP": _MACS + b"\x08\x06" + bytes(28),
        "no IP version": ethernet(b"\x50" + ip4(tcp(payload))[1:]),
        "IPv4 of 4 words": ethernet(b"\x44" + ip4(tcp(payload))[1:]),
        "three VLAN tags": ethernet(ip4(tcp(payload)), _QINQ, _VLAN, _VLAN),
        "an unknown IPv6 extension": ethernet(ip6(tcp(payload), (253, _extension()))),
        "too many IPv6 extensions": ethernet(
            ip6(tcp(payload), *[(_DESTINATION, _extension())] * 7)
        ),
    }


def reversed_ends(packet: bytes) -> bytes:
    """A plain IPv4 packet of this module as it goes the other way: from us to the peer."""
    return b"".join(
        (packet[:26], packet[30:34], packet[26:30], packet[36:38], packet[34:36], packet[38:])
    )
