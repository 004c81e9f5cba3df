"""A leader's lease: until when no other can have been elected (§6.4.1 of the thesis).

Each heartbeat reply says for how long from then on its sender grants nobody a vote. Counted from
the moment at which the heartbeat left, that is too short and never too long, but for clocks that
run at different speeds; so the declared drift is taken off. Until the earliest moment that a quorum
gives, this leader is the only one. The clock must go on while the machine is suspended.

A hand-over lets voters vote in spite of their word. Its message may be late, so a leader that has
sent one has no lease for the rest of its term.
"""

from __future__ import annotations

from raft_agent.consensus import quorum
from raft_agent.consensus.types import Configuration

_FOR_EVER = 1 << 62
_MILLION = 1_000_000


class Lease:
    """`is_void`: given up for the rest of the term."""

    __slots__ = ("_promised_until_us", "_sent", "is_void")

    def __init__(self) -> None:
        self.is_void = False
        self._sent: dict[int, int] = {}  # request id: when it left, oldest first
        self._promised_until_us: dict[int, int] = {}

    def sent(self, request_id: int, now_us: int, longest_us: int) -> None:
        """Heartbeats with this id leave now; those older than `longest_us` prove nothing more."""
        sent = self._sent
        while sent and sent[oldest := next(iter(sent))] < now_us - longest_us:
            del sent[oldest]
        sent[request_id] = now_us

    def promised(self, peer: int, request_id: int, withheld_us: int, drift_ppm: int) -> None:
        """`peer` answered: it votes for nobody for so long."""
        sent_us = self._sent.get(request_id)
        if sent_us is None:
            return
        until_us = sent_us + withheld_us * (_MILLION - drift_ppm) // _MILLION
        self._promised_until_us[peer] = max(self._promised_until_us.get(peer, 0), until_us)

    def holds(self, configuration: Configuration, member_id: int, now_us: int) -> bool:
        """Whether a quorum, this leader included, votes for nobody else yet."""
        if self.is_void:
            return False
        promised = {**self._promised_until_us, member_id: _FOR_EVER}
        return now_us < quorum.reached_by_quorum(configuration, promised)
