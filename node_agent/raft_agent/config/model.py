"""What can be configured: the one place that names every key, its type, default and meaning.

`docs/configuration.md` is generated from here, and so are the names of environment variables.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from raft_agent.config import values
from raft_agent.config.errors import ConfigError, Problem
from raft_agent.tls.files import TlsFiles


class Key(msgspec.Struct, frozen=True):
    """`text` says what a key means; `check` turns a value of the right type into what is used, or
    raises ValueError; `default` tells people a default that is computed. `secret`: the value is
    shown to nobody.
    """

    text: str
    check: Callable[[Any], Any] | None = None
    default: str = ""
    secret: bool = False


class Server(msgspec.Struct, frozen=True, kw_only=True):
    node_id: Annotated[
        str,
        Key(
            "The member's name: up to 63 letters, digits, `.`, `_`, `-`, a letter or digit first.",
            values.member_name,
        ),
    ]
    listen_addr: Annotated[
        str, Key("Where other members reach this one, as `host:port`.", values.listen_address)
    ] = "0.0.0.0:5555"
    advertise_addr: Annotated[
        str | None,
        Key(
            "What other members dial. Needed where they see this machine under another address.",
            values.dial_address,
            "`listen_addr` when it is no wildcard, else this node's own entry among the peers, "
            "else the address of the route to the peers",
        ),
    ] = None
    data_dir: Annotated[
        str,
        Key("The directory of log, vote and identity. It belongs to one agent.", values.path),
    ]
    log_level: Annotated[
        str,
        Key(
            "`debug`, `info`, `warning`, `error` or `off`; levels of parts may follow, as in "
            "`info,raft.transport=debug`. `RAFT_LOG` has the same form and goes on top of it.",
            values.log_levels,
        ),
    ] = "info"
    log_format: Annotated[
        str,
        Key(
            "`text` or `json`, one object a line. `RAFT_LOG_FORMAT` goes before it.",
            values.one_of("text", "json"),
        ),
    ] = "text"
    ipc_socket: Annotated[
        str | None,
        Key(
            "The Unix socket for `raftctl`.",
            values.socket_path,
            "`/tmp/raft-<server.node_id>.sock`",
        ),
    ] = None
    ipc_group: Annotated[
        str | None,
        Key(
            "A group whose members may use the socket (mode 0660). Without it only the agent's "
            "own user may (0600).",
            values.group,
            "no group",
        ),
    ] = None
    http_addr: Annotated[
        str | None,
        Key(
            "Where `/metrics`, `/healthz`, `/readyz` and the status page are served, to everybody "
            "who can reach it: `127.0.0.1:9555` keeps it on this machine.",
            values.http_address,
            "off",
        ),
    ] = None


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    heartbeat_interval_ms: Annotated[
        int, Key("How often a leader tells its followers that it lives.", values.milliseconds)
    ] = 50
    election_timeout_min_ms: Annotated[
        int,
        Key(
            "The shortest silence of the leader after which a follower stands for election; "
            "greater than the heartbeat interval.",
            values.milliseconds,
        ),
    ] = 150
    election_timeout_max_ms: Annotated[
        int,
        Key(
            "The longest such silence; each wait is drawn at random between the two.",
            values.milliseconds,
        ),
    ] = 300
    disk_stall_ms: Annotated[
        int | None,
        Key(
            "When a log write takes longer, the disk hangs: a leader hands over to a member whose "
            "disk does not.",
            values.milliseconds,
            "the larger of 2000 and five longest election timeouts",
        ),
    ] = None
    clock_drift_ppm: Annotated[
        int,
        Key(
            "How much faster, in parts per million, one member's clock may run than another's. "
            "Reads with `--consistency lease` count on it.",
            values.drift_ppm,
        ),
    ] = 1000
    state_check_interval_ms: Annotated[
        int,
        Key(
            "How often a leader has all members compare their states, ten times as seldom while "
            "nothing is written.",
            values.milliseconds,
        ),
    ] = 30_000

    @property
    def disk_stall_or_default_ms(self) -> int:
        """`disk_stall_ms`, or its default."""
        return self.disk_stall_ms or max(2000, 5 * self.election_timeout_max_ms)


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    snapshot_entries: Annotated[
        int,
        Key(
            "A snapshot is taken when the log has this many entries since the last one …",
            values.count,
        ),
    ] = 1_000_000
    snapshot_log_mib: Annotated[
        int,
        Key(
            "… or has grown by this many MiB, and by as much as the last snapshot is large. The "
            "two newest snapshots are kept, and the log from the older one on.",
            values.count,
        ),
    ] = 64


class Ebpf(msgspec.Struct, frozen=True, kw_only=True):
    enabled: Annotated[
        bool,
        Key(
            "Attach to the network interface (Linux 5.10 or newer; root, or CAP_BPF, "
            "CAP_NET_ADMIN and CAP_PERFMON). Where that can't be, the agent runs without and says "
            "why."
        ),
    ] = False
    interface: Annotated[
        str,
        Key(
            "The interface, or `auto`, which is right nearly everywhere: those that the routes to "
            "the peers use.",
            values.interface,
        ),
    ] = "eth0"
    pin_dir: Annotated[
        str | None,
        Key(
            "A directory on a BPF file system for the maps, so that other programs can read them. "
            "Every agent of a machine needs one of its own.",
            values.path,
            "maps are not pinned",
        ),
    ] = None
    fresh_ms: Annotated[
        int,
        Key(
            "How long a copy of exported maps counts as fresh after the moment at which it had all "
            "that was acknowledged: at least five heartbeat intervals.",
            values.milliseconds,
        ),
    ] = 1000
    firewall: Annotated[
        str,
        Key(
            "What happens to new connections to the Raft port from addresses that belong neither "
            "to members nor to this machine: `off` nothing, `audit` they are counted, `enforce` "
            "they are dropped.",
            values.one_of("off", "audit", "enforce"),
        ),
    ] = "off"
    firewall_allow: Annotated[
        tuple[str, ...],
        Key(
            "Further addresses that the firewall lets in, as in `192.168.105.7` or `10.0.0.0/8`: "
            "machines that are to join, and clients.",
            values.networks,
        ),
    ] = ()


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    ca: Annotated[
        str | None,
        Key(
            "A file with the certificates of the authorities by whom those of members and clients "
            "were signed, in PEM; several while they are replaced. With `ca`, `cert` and `key` "
            "members speak TLS 1.3 with each other, and remote clients are served at "
            "`listen_addr`: all three or none.",
            values.path,
            "no TLS",
        ),
    ] = None
    cert: Annotated[
        str | None,
        Key(
            "A file with this node's certificate, in PEM, made for `node_id`: `raftctl cert node`.",
            values.path,
            "no TLS",
        ),
    ] = None
    key: Annotated[
        str | None,
        Key(
            "A file with the certificate's private key, in PEM, which nobody else may read.",
            values.path,
            "no TLS",
        ),
    ] = None
    crl: Annotated[
        str | None,
        Key(
            "A file with lists of certificates that are refused, in PEM: `raftctl cert revoke`.",
            values.path,
            "none is revoked",
        ),
    ] = None
    clear_headers: Annotated[
        bool,
        Key(
            "Leave the headers of frames clear, so that the kernel part sees them; the true ones "
            "are under TLS all the same, and a difference closes the connection."
        ),
    ] = True

    @property
    def files(self) -> TlsFiles | None:
        """The files, when TLS is on."""
        if self.ca is None or self.cert is None or self.key is None:
            return None
        return TlsFiles(self.ca, self.cert, self.key, self.crl or "")


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[
        str,
        Key(
            "A name for people, and the directory below `ebpf.pin_dir` that exported maps are in: "
            "with another name their pins have other paths.",
            values.member_name,
        ),
    ] = "default"
    bootstrap: Annotated[
        bool, Key("Found a new cluster of this one member. Not together with peers or `join`.")
    ] = False
    join: Annotated[
        tuple[str, ...],
        Key(
            "Addresses of members that a new node asks to be added. Without `token` and `[tls]` it "
            "waits until somebody runs `raftctl join`. Not together with peers.",
            values.dial_addresses,
        ),
    ] = ()
    token: Annotated[
        str | None,
        Key(
            "A secret that all members share: a new node that has it is added when it asks. Once a "
            "token is set, a node without it is not added by itself, even with a valid "
            "certificate. It never crosses the network. Better in the environment than in the "
            "file.",
            values.secret,
            "none: nodes are added by `raftctl join` only",
            secret=True,
        ),
    ] = None


class ExportSeed(msgspec.Struct, frozen=True, kw_only=True):
    """A map that the cluster exports from its first start on."""

    prefix: Annotated[str, Key("The keys below it, as in `fw/deny/`.")]
    map: Annotated[
        str, Key("The map's name: a lower-case letter, then up to 31 of `a-z`, `0-9`, `_`.")
    ]
    kind: Annotated[str, Key("`hash`, or `lpm_trie` for keys that are prefixes.")] = "hash"
    key: Annotated[
        str,
        Key(
            "What stands after the prefix: `u32`, `u64`, `bytes[N]`, `ipv4`, `ipv6`, "
            "`ipv4_prefix` or `ipv6_prefix`."
        ),
    ]
    value: Annotated[str, Key("What the keys hold: `u8`, `u16`, `u32`, `u64` or `bytes[N]`.")]
    max_entries: Annotated[int, Key("How many keys there may be at most.", values.count)] = 10_000
    group: Annotated[str, Key("A group that may read the pin, on every node.")] = ""
    with_revision: Annotated[bool, Key("After each value stands its revision, a `u64`.")] = False


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Another member, for the first start only."""

    id: Annotated[str, Key("The other member's `server.node_id`.", values.member_name)]
    address: Annotated[str, Key("Where to dial it, as `host:port`.", values.dial_address)]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration that was checked as a whole.

    `peers` are the other members, never this one, sorted by name. `notes` are sentences that
    belong into the log at start: what was accepted without effect, or is unwise. `path` and
    `overrides` are what it was loaded from, to load it again on SIGHUP. `bpf_object` (empty: the
    one that was installed) and `fault_injection` come from the command line only.
    """

    server: Server
    timing: Timing
    storage: Storage
    ebpf: Ebpf
    cluster: Cluster
    tls: Tls = Tls()
    peers: tuple[Peer, ...] = ()
    exports: tuple[ExportSeed, ...] = ()
    notes: tuple[str, ...] = ()
    path: str = ""
    overrides: tuple[str, ...] = ()
    bpf_object: str = ""
    fault_injection: bool = False

    @property
    def ipc_socket(self) -> str:
        """The path of the Unix socket."""
        return self.server.ipc_socket or f"/tmp/raft-{self.server.node_id}.sock"  # noqa: S108

    def advertise_address(self) -> str:
        """What others dial to reach this node, "host:port".

        Asks the system for the route to the peers when the configuration does not say, so it may
        wait for a name server. Raises ConfigError when no peer has a route.
        """
        if self.server.advertise_addr is not None:
            return self.server.advertise_addr
        if not values.is_wildcard(self.server.listen_addr):
            return self.server.listen_addr
        targets = (*(peer.address for peer in self.peers), *self.cluster.join)
        port = values.split_address(self.server.listen_addr)[1]
        for target in targets or (_ANYWHERE,):
            host = _local_address_towards(target)
            if host is not None:
                return values.join_address(host, port)
        if not targets:
            # A machine without any route can only be reached from itself.
            return values.join_address("127.0.0.1", port)
        text = (
            f"there is no route to any of {', '.join(targets)}, so the address that others should "
            f'dial is not known: set server.advertise_addr = "ADDRESS:{port}"'
        )
        raise ConfigError([Problem(self.path, text)])


# TEST-NET-1 of RFC 5737: never in use, so the route to it is the default route.
_ANYWHERE = "192.0.2.1:9"


def _local_address_towards(address: str) -> str | None:
    """The source address that the system would use; None without a route.

    connect(2) on a datagram socket only chooses a route, it sends nothing.
    """
    host, port = values.split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError:
        return None
    for family, kind, protocol, _, where in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(where)
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return None
