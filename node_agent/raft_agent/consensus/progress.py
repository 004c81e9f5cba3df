"""What a leader knows of one peer, and what it keeps only while it leads (Figure 2, "volatile state
on leaders")."""

from __future__ import annotations

import enum
from collections import deque

from raft_agent.consensus.types import Settings, SnapshotMeta


class ReplicationState(enum.Enum):
    """PROBE: one small message at a time until the logs are known to agree. REPLICATE: many in
    flight, `next_index` runs ahead of what is acknowledged. SNAPSHOT: what the peer needs is not in
    the log any more, so it gets a snapshot first.
    """

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Transmission:
    """A snapshot on its way to one peer, one chunk at a time. `request_id`: the chunk that was sent
    last; `read_offset`: where the host was asked to read, -1 when it was not. `sent_us`: when
    something was last asked for or sent.
    """

    __slots__ = ("offset", "read_offset", "request_id", "sent_us", "snapshot", "token")

    def __init__(self, snapshot: SnapshotMeta, token: int, now_us: int) -> None:
        self.snapshot = snapshot
        self.token = token
        self.request_id = 0
        self.offset = 0
        self.read_offset = -1
        self.sent_us = now_us


class Progress:
    """One peer's replication.

    Invariant: match_index < next_index; everything up to `match_index` is durable at the peer and
    equal to the leader's log, as the peer said in this `session`. `had_entries`: it said so of some
    entry in this session or in one before. `stamp_us`: the peer's clock in the last heartbeat reply
    of this session; `as_of`: what goes back to it (`freshness.py`).
    """

    __slots__ = (
        "as_of",
        "commit_sent",
        "had_entries",
        "inflight",
        "inflight_bytes",
        "last_ack_us",
        "last_contact_us",
        "match_index",
        "next_index",
        "probe_request_id",
        "probe_sent_us",
        "reading_from",
        "session",
        "stamp_us",
        "state",
        "transmission",
    )

    def __init__(self, session: int, next_index: int, now_us: int) -> None:
        self.last_contact_us = now_us
        self.match_index = 0
        self.had_entries = False
        self.restart(session, next_index, now_us)

    def restart(self, session: int, next_index: int, now_us: int) -> None:
        """Begin anew, as with a peer of which nothing is known."""
        self.session = session
        self.match_index = 0
        self.commit_sent = 0
        self.stamp_us = 0
        self.as_of = (0, 0)
        self.last_ack_us = now_us
        self.probe(next_index)

    def probe(self, next_index: int) -> None:
        """Go back to one message at a time from `next_index` on; what is in flight is given up."""
        self.state = ReplicationState.PROBE
        self.next_index = max(next_index, self.match_index + 1)
        self.inflight: deque[tuple[int, int, int]] = deque()  # request id, last index, bytes
        self.inflight_bytes = 0
        self.probe_request_id = 0
        self.probe_sent_us = 0
        self.reading_from = 0
        self.transmission: Transmission | None = None

    def send_snapshot(self, transmission: Transmission) -> None:
        """From now on the peer gets a snapshot, and nothing of the log."""
        self.probe(self.next_index)
        self.state = ReplicationState.SNAPSHOT
        self.transmission = transmission

    def may_send(self, settings: Settings) -> bool:
        if self.reading_from or self.state is ReplicationState.SNAPSHOT:
            return False
        if self.state is ReplicationState.PROBE:
            return self.probe_request_id == 0
        return (
            len(self.inflight) < settings.max_inflight_messages
            and self.inflight_bytes < settings.max_inflight_bytes
        )

    def sent(self, request_id: int, last_index: int, size: int, now_us: int) -> None:
        if self.state is ReplicationState.PROBE:
            self.probe_request_id = request_id
            self.probe_sent_us = now_us
            return
        if not self.inflight:
            self.last_ack_us = now_us
        self.inflight.append((request_id, last_index, size))
        self.inflight_bytes += size
        self.next_index = last_index + 1

    def acknowledged(self, match_index: int, now_us: int) -> None:
        """The peer's log agrees with ours up to `match_index`, and that part is on its disk."""
        self.last_ack_us = now_us
        self.match_index = max(self.match_index, match_index)
        self.had_entries = self.had_entries or match_index > 0
        if self.state is not ReplicationState.REPLICATE:
            self.state = ReplicationState.REPLICATE
            self.transmission = None
            self.next_index = self.match_index + 1
            self.probe_request_id = 0
        self.next_index = max(self.next_index, self.match_index + 1)
        while self.inflight and self.inflight[0][1] <= self.match_index:
            self.inflight_bytes -= self.inflight.popleft()[2]

    def awaits(self, request_id: int) -> bool:
        """Whether a refusal of this request says something about what is in flight now."""
        if self.state is ReplicationState.SNAPSHOT:
            return False
        if self.state is ReplicationState.PROBE:
            return request_id == self.probe_request_id
        return any(entry[0] == request_id for entry in self.inflight)

    def is_overdue(self, now_us: int, patience_us: int) -> bool:
        """Whether what was sent must be taken for lost."""
        if self.transmission is not None:
            return now_us - self.transmission.sent_us > patience_us
        if self.state is ReplicationState.PROBE:
            return self.probe_request_id != 0 and now_us - self.probe_sent_us > patience_us
        return bool(self.inflight) and now_us - self.last_ack_us > patience_us
