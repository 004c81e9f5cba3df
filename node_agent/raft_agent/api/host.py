"""What the API server needs of the node that it stands before; the runtime provides it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from raft_agent.api import protocol
from raft_agent.machine.commands import Command
from raft_agent.machine.machine import Machine

# Commands with one outcome: no more of them, and no more bytes of keys and values, unless one
# command alone has more.
MAX_TOGETHER = 1024
MAX_TOGETHER_BYTES = 256 << 10


class Failure(msgspec.Struct, frozen=True):
    """Why a request can't be served; becomes the protocol's Error as it is."""

    code: protocol.ErrorCode
    error: str
    hint: str = ""
    leader: str = ""


class Applied(msgspec.Struct, frozen=True):
    """What was proposed together was committed and applied here, the first command as the entry
    `first_index`; `results` are what the machine answered to each."""

    first_index: int
    term: int
    results: Sequence[object]


Outcome = Applied | Failure


class Backup(Protocol):
    """A snapshot's file, piece by piece; `close` it in the end, whatever comes. `index`: the last
    entry that it holds."""

    index: int

    async def next_piece(self) -> protocol.SnapshotPiece:
        """The next bytes; nothing follows the one that `is_last`."""

    def close(self) -> None: ...


class Host(Protocol):
    """One node, seen from its API. All methods are called in the event loop and never block;
    callbacks come later in the same loop, exactly once each.
    """

    node_name: str
    machine: Machine
    # Why nothing may be read from the state, nor written through this node.
    unfit: Failure | None

    def propose(self, commands: Sequence[Command], done: Callable[[Outcome], None]) -> None:
        """Replicate these commands (see MAX_TOGETHER), one behind the other in one batch, so that
        they share an outcome. What is proposed in one turn of the loop shares a batch."""

    def read_barrier(self, done: Callable[[Failure | None], None], *, lease: bool = False) -> None:
        """Calls back with None once `machine` is at least as new as every write that was
        acknowledged anywhere before this call (linearizable reads on any node). `lease`: the
        leader's lease is proof enough that it still leads."""

    def lease_times_ms(self) -> dict[int, int]:
        """How much of its time each lease has left; empty when this node does not lead."""

    def stale_age_ms(self) -> int | None:
        """How long ago `machine` was as new as the leader's; None when that is not known."""

    def forward(self, request: protocol.Request, done: Callable[[bytes | Failure], None]) -> None:
        """Have the leader serve `request`; the answer is the encoded (MessagePack) Reply of it."""

    def transfer_leadership(self, target: str, done: Callable[[str | Failure], None]) -> None:
        """Hand over to the member `target` ("": any); calls back with the new leader's name."""

    def change_membership(
        self,
        request: protocol.MembershipRequest,
        done: Callable[[protocol.MembershipResult | Failure], None],
        *,
        may_forward: bool,
        certified: str = "",
    ) -> None:
        """Change the members. `may_forward`: find the leader; else fail when this node does not
        lead. `certified`: the node whose certificate whoever asks has shown, if any."""

    def recover(
        self,
        request: protocol.Recover,
        done: Callable[[protocol.RecoverResult | Failure], None],
    ) -> None:
        """Go on from this member alone, or only look whether that would be right."""

    def begin_backup(self) -> Backup | Failure:
        """A snapshot of what `machine` holds at this moment."""

    def join_challenge(self) -> bytes:
        """A nonce for one JoinSelf."""

    def is_leader(self) -> bool: ...

    def why_not_leading(self) -> Failure:
        """Why this node, which does not lead, can't do what only a leader does. The code is
        NOT_LEADER when it knows one to pass it on to."""

    def leader_name(self) -> str | None: ...

    def status(self) -> protocol.StatusResult: ...

    def health(self) -> protocol.HealthResult: ...

    def vitals(self) -> protocol.VitalsResult: ...

    def member_list(self) -> protocol.MemberListResult: ...

    def kernel(self) -> protocol.KernelResult: ...

    def set_fault(self, request: protocol.FaultSet) -> protocol.FaultsResult | Failure: ...

    def heal_faults(self, request: protocol.FaultHeal) -> protocol.FaultsResult | Failure: ...

    def export_list(self) -> protocol.ExportListResult: ...

    def export_dump(
        self,
        name: str,
        limit: int,
        done: Callable[[protocol.ExportDumpResult | Failure], None],
    ) -> None:
        """What this node's kernel has in the map."""

    def watch_export(
        self, name: str, on_event: Callable[[protocol.ExportEvent], None]
    ) -> Callable[[], None] | Failure:
        """Calls `on_event` for what is written to this node's map until the returned function is
        called."""

    def flip_state(self, key: str) -> Failure | None:
        """Turn a bit of the key's value in memory, for a test."""

    def check_states(self, done: Callable[[protocol.StateCheckResult | Failure], None]) -> None:
        """Have all members compare their states; only a leader does."""

    def rebuild(
        self, *, force: bool, done: Callable[[protocol.RebuildResult | Failure], None]
    ) -> None:
        """Start anew from what the disk holds, as soon as `done` has returned."""

    def audit(self, who: str, what: str, outcome: str) -> None:
        """Keep for people what somebody has done, or tried to do, about the cluster itself."""

    def recent_events(self, limit: int) -> list[protocol.EventItem]: ...

    def subscribe_events(
        self, on_event: Callable[[protocol.EventItem], None]
    ) -> Callable[[], None]:
        """Calls `on_event` for every new event until the returned function is called."""
