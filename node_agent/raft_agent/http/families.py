"""Every metric that an agent has: its name, what it means, and where its value comes from.

`docs/metrics.md` is generated from here, and the dashboard and the alert rules in
`docs/monitoring/` are held against it. Another part of the agent adds its metrics as a group of its
own: fields of `source.Reading` for the values, and a `Group` in `GROUPS`.
"""

from __future__ import annotations

from collections.abc import Iterable

from raft_agent.http.export_families import EXPORTS
from raft_agent.http.family import Family, Group, Kind, Sample, by, of_peers, one
from raft_agent.http.kernel_families import KERNEL
from raft_agent.http.source import Reading

_ROLES = ("leader", "follower", "candidate", "learner")


def _node_info(reading: Reading) -> Iterable[Sample]:
    status = reading.status
    return [((status.node_id, status.cluster_id, status.version), 1)]


def _connected_voters(reading: Reading) -> float:
    voters = reading.status.voters
    connected = sum(peer.is_connected and peer.name in voters for peer in reading.peers)
    return connected + (reading.status.node_id in voters)


_JUDGEMENTS = ("agrees", "differs", "disputed")

_NODE = Group(
    "The node",
    (
        Family(
            "raft_node_info",
            Kind.GAUGE,
            "Who this is; always 1.",
            ("node", "cluster_id", "version"),
            _node_info,
        ),
        by(
            Kind.GAUGE,
            "raft_role",
            "role",
            "1 for the role that the node has, 0 for the others.",
            lambda r: {role: float(role == r.status.role) for role in _ROLES},
        ),
        one(
            Kind.GAUGE,
            "raft_ready",
            "1 while the node can serve clients, as /readyz says.",
            lambda r: not r.not_ready,
        ),
        one(
            Kind.GAUGE,
            "raft_leader_known",
            "1 while the node knows a leader.",
            lambda r: r.status.leader is not None,
        ),
        one(
            Kind.GAUGE,
            "raft_certificate_expiry_timestamp_seconds",
            "When the node's own certificate ends, since 1970; absent without [tls].",
            lambda r: r.certificate_ends,
        ),
        one(Kind.GAUGE, "raft_term", "The current term.", lambda r: r.status.term),
        one(
            Kind.GAUGE,
            "raft_cluster_version",
            "The cluster version in force as far as this node has applied the log; 0: no cluster.",
            lambda r: r.status.cluster_version,
        ),
        one(
            Kind.GAUGE,
            "raft_known_version",
            "The newest cluster version that this agent knows. The one in force rises to the "
            "lowest that any member has here.",
            lambda r: r.status.knows[1],
        ),
        by(
            Kind.GAUGE,
            "raft_members",
            "kind",
            "How many voters and learners the configuration has.",
            lambda r: {"voter": len(r.status.voters), "learner": len(r.status.learners)},
        ),
        one(
            Kind.GAUGE,
            "raft_connected_voters",
            "To how many voters this node's connection stands, itself among them if it is one.",
            _connected_voters,
        ),
        by(
            Kind.COUNTER,
            "raft_elections_total",
            "phase",
            "Elections at this node: it asked whether one has a chance (pre_vote), stood for it "
            "(vote), was elected (won); it stood still and waited once more (deferred).",
            lambda r: r.vitals.elections,
        ),
        one(
            Kind.COUNTER,
            "raft_leader_changes_total",
            "How often this node got a leader, itself among them.",
            lambda r: r.events.get("leader_elected", 0) + r.events.get("leader_found", 0),
        ),
        by(
            Kind.COUNTER,
            "raft_events_total",
            "kind",
            "What raftctl events tells, by kind; a kind appears when it has happened.",
            lambda r: r.events,
        ),
    ),
)

_LOG = Group(
    "The log",
    (
        one(
            Kind.GAUGE,
            "raft_log_first_index",
            "The first entry that is in the log on disk.",
            lambda r: r.vitals.first_index,
        ),
        one(Kind.GAUGE, "raft_log_last_index", "The last entry.", lambda r: r.vitals.last_index),
        one(
            Kind.GAUGE,
            "raft_log_persisted_index",
            "Up to here the log is on this node's disk.",
            lambda r: r.vitals.persisted_index,
        ),
        one(
            Kind.GAUGE,
            "raft_commit_index",
            "Up to here the log is known to be committed.",
            lambda r: r.vitals.commit_index,
        ),
        one(
            Kind.GAUGE,
            "raft_applied_index",
            "Up to here the log is applied to the state.",
            lambda r: r.vitals.applied_index,
        ),
        one(
            Kind.HISTOGRAM,
            "raft_log_fsync_duration_seconds",
            "How long the disk took to make a group of entries durable.",
            lambda r: r.fsyncs,
        ),
        one(
            Kind.GAUGE,
            "raft_disk_stalled",
            "1 while a log write takes longer than timing.disk_stall_ms.",
            lambda r: r.disk_stalls,
        ),
        one(
            Kind.GAUGE,
            "raft_storage_failed",
            "1 when a write failed and the node takes no part any more.",
            lambda r: r.storage_failed,
        ),
    ),
)

_WORK = Group(
    "The work",
    (
        by(
            Kind.COUNTER,
            "raft_proposals_total",
            "outcome",
            "Commands that were proposed at this node: committed and applied here (applied), not "
            "taken (refused), replaced by another leader's (lost), given up without knowing "
            "(unknown).",
            lambda r: r.vitals.proposals,
        ),
        one(
            Kind.HISTOGRAM,
            "raft_commit_duration_seconds",
            "How long applied commands took from the proposal until they were applied here.",
            lambda r: r.commits,
        ),
        by(
            Kind.GAUGE,
            "raft_queue_length",
            "queue",
            "What waits: events for the core; held_messages until the disk has what they "
            "promise; gathered_proposals for the end of the loop's turn, logged_proposals for "
            "their commit; reads; log_writes for the log's thread.",
            lambda r: r.vitals.queues,
        ),
        one(
            Kind.HISTOGRAM,
            "raft_event_loop_lag_seconds",
            "How late a timer of the event loop fires, looked at twice a second.",
            lambda r: r.loop_lags,
        ),
    ),
)

_PEERS = Group(
    "Other members",
    (
        of_peers(
            Kind.GAUGE,
            "raft_peer_connected",
            "1 while this node's connection to the peer stands.",
            lambda p: p.is_connected,
        ),
        of_peers(
            Kind.GAUGE,
            "raft_peer_last_contact_seconds",
            "How long ago the peer was heard; absent before the first time.",
            lambda p: p.contact_s,
        ),
        of_peers(
            Kind.GAUGE,
            "raft_peer_match_index",
            "Up to here the peer's log is known to agree and to be on its disk; only at the "
            "leader.",
            lambda p: p.match_index,
        ),
        of_peers(
            Kind.GAUGE,
            "raft_peer_lag_entries",
            "How many entries of the log the peer is not known to have; only at the leader.",
            lambda p: p.lag,
        ),
        of_peers(
            Kind.HISTOGRAM,
            "raft_peer_round_trip_seconds",
            "From a heartbeat or a pre-vote to its answer, which waits for no disk.",
            lambda p: p.round_trips,
        ),
        of_peers(
            Kind.COUNTER,
            "raft_peer_received_bytes_total",
            "Bytes that came from the peer.",
            lambda p: p.received_bytes,
        ),
        of_peers(
            Kind.COUNTER,
            "raft_peer_sent_bytes_total",
            "Bytes that went to the peer.",
            lambda p: p.sent_bytes,
        ),
        of_peers(
            Kind.COUNTER,
            "raft_peer_received_frames_total",
            "Frames that came from the peer.",
            lambda p: p.received_frames,
        ),
        of_peers(
            Kind.COUNTER,
            "raft_peer_sent_frames_total",
            "Frames that went to the peer.",
            lambda p: p.sent_frames,
        ),
        of_peers(
            Kind.COUNTER,
            "raft_peer_dropped_frames_total",
            "Frames that were not sent: no connection, or its queue was full.",
            lambda p: p.dropped_frames,
        ),
        of_peers(
            Kind.GAUGE,
            "raft_peer_queued_bytes",
            "What waits in this process to be sent to the peer.",
            lambda p: p.queued_bytes,
        ),
        of_peers(
            Kind.COUNTER,
            "raft_peer_reconnects_total",
            "How often the connection to the peer was made anew.",
            lambda p: p.reconnects,
        ),
        by(
            Kind.COUNTER,
            "raft_transport_rejects_total",
            "reason",
            "Connections and frames that were refused; a reason appears when it has happened. "
            "Those that begin with tls_ are handshakes and records of TLS.",
            lambda r: r.rejects,
        ),
    ),
)

_STATE = Group(
    "State and snapshots",
    (
        one(Kind.GAUGE, "raft_keys", "Keys in the store.", lambda r: r.vitals.counts["keys"]),
        one(Kind.GAUGE, "raft_store_revision", "The store's revision.", lambda r: r.revision),
        one(
            Kind.GAUGE,
            "raft_sessions",
            "Sessions of clients.",
            lambda r: r.vitals.counts["sessions"],
        ),
        one(
            Kind.GAUGE,
            "raft_one_shots",
            "Writes without a session that are remembered until their deadline.",
            lambda r: r.one_shots,
        ),
        by(
            Kind.GAUGE,
            "raft_watches",
            "kind",
            "Watches at this node: of single keys, of prefixes, of messages.",
            lambda r: {kind: float(count) for kind, count in r.watches.items()},
        ),
        one(
            Kind.GAUGE,
            "raft_client_connections",
            "Clients that are connected to this node's socket.",
            lambda r: r.vitals.counts["clients"],
        ),
        one(
            Kind.GAUGE,
            "raft_snapshot_index",
            "The last entry that the newest snapshot holds; 0 without one.",
            lambda r: r.snapshot.index,
        ),
        one(
            Kind.GAUGE,
            "raft_snapshot_size_bytes",
            "The newest snapshot's size.",
            lambda r: r.snapshot.size_bytes,
        ),
        one(
            Kind.GAUGE,
            "raft_snapshot_timestamp_seconds",
            "When this process last took a snapshot, since 1970; absent before the first.",
            lambda r: r.snapshot.taken_at,
        ),
        one(
            Kind.HISTOGRAM,
            "raft_snapshot_duration_seconds",
            "How long taking a snapshot took, while the node went on.",
            lambda r: r.snapshot.durations,
        ),
        by(
            Kind.COUNTER,
            "raft_state_checks_total",
            "judgement",
            "Comparisons of the members' states: this node's was a majority's (agrees), was not "
            "(differs), or no majority had equal ones (disputed).",
            lambda r: {name: r.state_checks.get(name, 0) for name in _JUDGEMENTS},
        ),
        one(
            Kind.GAUGE,
            "raft_state_check_index",
            "The newest entry after which this node's state was a majority's; 0 before the first.",
            lambda r: r.agreed_index,
        ),
        one(
            Kind.GAUGE,
            "raft_state_differs",
            "1 when this node's state is known to be wrong: run raftctl rebuild there.",
            lambda r: int(r.state_differs),
        ),
    ),
)

GROUPS = (_NODE, _LOG, _WORK, _PEERS, _STATE, KERNEL, EXPORTS)

PROCESS = Group(
    "The process",
    tuple(
        Family(f"process_{name}", kind, text, (), lambda _: ())
        for name, kind, text in (
            ("cpu_seconds_total", Kind.COUNTER, "Processor time, user and system."),
            ("resident_memory_bytes", Kind.GAUGE, "Memory in use."),
            ("virtual_memory_bytes", Kind.GAUGE, "Address space in use."),
            ("start_time_seconds", Kind.GAUGE, "When the process started, since 1970."),
            ("open_fds", Kind.GAUGE, "Open files, connections among them."),
            ("max_fds", Kind.GAUGE, "How many there can be."),
        )
    ),
)
"""What prometheus-client tells of every process (on Linux); read there and not from a Reading."""
