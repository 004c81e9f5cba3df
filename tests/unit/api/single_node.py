"""A whole node for API tests: a real machine behind a real Unix socket, a cluster of one.

What it lacks is the log on disk: each turn's commands become one batch and are applied at once.
Its part in a cluster can be set, so that followers and nodes without a leader can be tested, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from raft_agent.api import protocol
from raft_agent.api.host import Applied, Failure, Outcome
from raft_agent.api.server import ApiServer
from raft_agent.consensus import batch
from raft_agent.consensus.types import Configuration, Member, RefusalReason
from raft_agent.histogram import BUCKETS
from raft_agent.machine.commands import Command, encode_commands, join_commands
from raft_agent.machine.machine import Machine
from raft_agent.runtime.backups import MachineBackup
from raft_agent.runtime.refusals import failure_of
from raft_agent.runtime.states import flip_bit
from raft_agent.storage.snapshot_format import SnapshotHeader
from tests.unit.machine.batches import digest_of

MEMBER_ID = 0xA1


class SingleNode:
    """A Host. `leader`: the name that this node takes for the leader's."""

    def __init__(self, name: str = "node-01", *, messages_keep: int = 100_000) -> None:
        self.node_name = name
        self.machine = Machine(messages_keep=messages_keep)
        self.unfit: Failure | None = None
        self.rebuilt: list[bool] = []
        self.leader: str | None = name
        self.leader_api: ApiServer | None = None
        self.is_in_cluster = True
        self.time_ms = 1_700_000_000_000
        self.term = 1
        self.ebpf = protocol.EbpfStatus()
        self.barriers = 0
        self.lease_barriers = 0
        self.age_ms: int | None = None
        self.membership_requests: list[tuple[protocol.MembershipRequest, bool]] = []
        self.recovery: Callable[[bool], protocol.RecoverResult | Failure] = self._no_recovery
        self.audits: list[tuple[str, str, str]] = []
        self.batches = 0
        self.hold_back = False
        self.fresh_ms = 700
        self.export_problem = ""
        self.export_watchers: list[Callable[[protocol.ExportEvent], None]] = []
        self._waiting: list[tuple[Sequence[Command], Callable[[Outcome], None]]] = []
        self._events: list[protocol.EventItem] = []
        self._subscribers: list[Callable[[protocol.EventItem], None]] = []

    def propose(self, commands: Sequence[Command], done: Callable[[Outcome], None]) -> None:
        self._waiting.append((commands, done))
        if len(self._waiting) == 1 and not self.hold_back:
            asyncio.get_running_loop().call_soon(self.apply_waiting)

    def apply_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        results = self.apply_commands([command for commands, _ in waiting for command in commands])
        first = self.machine.last_applied - len(results) + 1
        start = 0
        for commands, done in waiting:
            stop = start + len(commands)
            done(Applied(first + start, self.term, results[start:stop]))
            start = stop

    def apply_commands(self, commands: Sequence[Command]) -> list[Any]:
        payload = join_commands(self.time_ms, len(commands), [encode_commands(commands)])
        first = self.machine.last_applied + 1
        kind = batch.BatchKind.COMMANDS
        self.batches += 1
        results = self.machine.apply(batch.encode(kind, first, self.term, len(commands), payload))
        assert results is not None
        return results

    def read_barrier(self, done: Callable[[Failure | None], None], *, lease: bool = False) -> None:
        self.barriers += 1
        self.lease_barriers += lease
        failure = None
        if self.leader is None:
            failure = Failure(protocol.ErrorCode.NO_LEADER, "No leader is known at the moment")
        asyncio.get_running_loop().call_soon(done, failure)

    def forward(self, request: protocol.Request, done: Callable[[bytes | Failure], None]) -> None:
        if self.leader_api is None:
            done(Failure(protocol.ErrorCode.NO_LEADER, "The leader does not answer"))
        else:
            self.leader_api.serve_forwarded(protocol.ENCODER.encode(request), done)

    def lease_times_ms(self) -> dict[int, int]:
        return {lease.id: lease.ttl_ms for lease in self.machine.leases if self.is_leader()}

    def stale_age_ms(self) -> int | None:
        return self.age_ms

    def change_membership(
        self,
        request: protocol.MembershipRequest,
        done: Callable[[protocol.MembershipResult | Failure], None],
        *,
        may_forward: bool,
        certified: str = "",
    ) -> None:
        self.certified = certified
        self.membership_requests.append((request, may_forward))
        if request.name == self.node_name:
            done(Failure(protocol.ErrorCode.QUORUM_AT_RISK, "The last voter can't go"))
        else:
            members = self.member_list().members
            done(protocol.MembershipResult(7, ["An even number of voters"], members, "catches up"))

    def recover(
        self,
        request: protocol.Recover,
        done: Callable[[protocol.RecoverResult | Failure], None],
    ) -> None:
        done(self.recovery(request.accept_data_loss))

    def _no_recovery(self, accept_data_loss: bool) -> protocol.RecoverResult | Failure:
        refusal = "A leader is known"
        if accept_data_loss:
            return Failure(protocol.ErrorCode.REFUSED, refusal)
        here = protocol.SurveyedMember(self.node_name, "a1", "127.0.0.1:5555", "here", 1, 1)
        return protocol.RecoverResult(self.node_name, [here], refusal, "Nothing is to be done")

    def begin_backup(self) -> MachineBackup | Failure:
        index, term = self.machine.last_applied, self.machine.last_applied_term
        if not index:
            return Failure(protocol.ErrorCode.NOT_IN_CLUSTER, "Nothing was applied yet")
        member = Member(MEMBER_ID, self.node_name, "127.0.0.1:5555")
        configuration = Configuration("c0ffee", (member,), (MEMBER_ID,))
        return MachineBackup(SnapshotHeader(index, term, 1, configuration), self.machine)

    def join_challenge(self) -> bytes:
        return b"nonce"

    def transfer_leadership(self, target: str, done: Callable[[str | Failure], None]) -> None:
        if target in ("", self.node_name):
            done(self.node_name)
        else:
            done(Failure(protocol.ErrorCode.NO_SUCH_MEMBER, f'There is no member "{target}"'))

    def is_leader(self) -> bool:
        return self.leader == self.node_name

    def why_not_leading(self) -> Failure:
        if not self.is_in_cluster:
            return failure_of(RefusalReason.FRESH, "", "")
        if self.leader in (None, self.node_name):
            return failure_of(RefusalReason.NO_LEADER, "", "")
        return failure_of(RefusalReason.NOT_LEADER, self.leader or "", "")

    def leader_name(self) -> str | None:
        return self.leader

    def status(self) -> protocol.StatusResult:
        return protocol.StatusResult(
            node_id=self.node_name,
            role="leader" if self.is_leader() else "follower",
            term=self.term,
            commit_index=self.machine.last_applied,
            last_applied=self.machine.last_applied,
            leader=self.leader,
            peers=[],
            voters=[self.node_name],
            learners=[],
            members=self.member_list().members,
            cluster_id="c0ffee",
            version="0",
            ebpf=self.ebpf,
        )

    def health(self) -> protocol.HealthResult:
        member = protocol.HealthMember(
            self.node_name, f"{MEMBER_ID:016x}", "", "voter", "healthy", 0, 0, 0
        )
        return protocol.HealthResult(True, self.leader, self.term, [member])

    def vitals(self) -> protocol.VitalsResult:
        index = self.machine.last_applied
        nothing = protocol.Latency([0] * BUCKETS, 0)
        return protocol.VitalsResult(
            time="2026-01-01T00:00:00.000Z",
            started="2026-01-01T00:00:00.000Z",
            first_index=1,
            last_index=index,
            persisted_index=index,
            commit_index=index,
            applied_index=index,
            snapshot_index=0,
            latencies=dict.fromkeys(("commit", "fsync", "wire", "loop_lag"), nothing),
            proposals={"applied": index},
            elections={},
            queues={},
            counts={"keys": self.machine.key_count()},
        )

    def kernel(self) -> protocol.KernelResult:
        return protocol.KernelResult(protocol.EbpfStatus(), [], [])

    def export_list(self) -> protocol.ExportListResult:
        """As of a node whose maps are right, unless `export_problem` says why they are not."""
        exports = [
            protocol.ExportInfo(
                **msgspec.structs.asdict(shape.export),
                version=shape.version,
                entries=self.machine.exports.count(shape.export.map),
                path=f"/sys/fs/bpf/raft/default/{shape.export.map}_v{shape.version}",
            )
            for shape in self.machine.exports
        ]
        index = self.machine.last_applied
        state = "degraded" if self.export_problem else "ready"
        return protocol.ExportListResult(state, self.export_problem, index, self.fresh_ms, exports)

    def export_dump(
        self,
        name: str,
        limit: int,
        done: Callable[[protocol.ExportDumpResult | Failure], None],
    ) -> None:
        shape = self.machine.exports.get(name)
        if shape is None:
            done(Failure(protocol.ErrorCode.KEY_NOT_FOUND, f"No map {name} is exported"))
            return
        entries, more = self.machine.list(shape.export.prefix, limit)
        found = [protocol.ExportEntry(entry.key, entry.value) for entry in entries]
        done(protocol.ExportDumpResult(name, self.machine.last_applied, found, more))

    def watch_export(
        self, name: str, on_event: Callable[[protocol.ExportEvent], None]
    ) -> Callable[[], None] | Failure:
        if self.machine.exports.get(name) is None:
            return Failure(protocol.ErrorCode.KEY_NOT_FOUND, f"No map {name} is exported")
        self.export_watchers.append(on_event)
        return lambda: self.export_watchers.remove(on_event)

    def set_fault(self, request: protocol.FaultSet) -> protocol.FaultsResult | Failure:
        faults = [
            protocol.FaultInfo(request.peer, way, request.per_mille, request.duration_ms)
            for way in ("in", "out")
            if request.direction in (way, "both")
        ]
        return protocol.FaultsResult(faults)

    def heal_faults(self, _request: protocol.FaultHeal) -> protocol.FaultsResult | Failure:
        return protocol.FaultsResult([])

    def flip_state(self, key: str) -> Failure | None:
        if not flip_bit(self.machine, key):
            return Failure(protocol.ErrorCode.KEY_NOT_FOUND, f'There is no key "{key}"')
        return None

    def check_states(self, done: Callable[[protocol.StateCheckResult | Failure], None]) -> None:
        if not self.is_leader():
            done(self.why_not_leading())
            return
        digest = f"{digest_of(self.machine.begin_snapshot()):016x}"
        member = protocol.MemberState(self.node_name, "agrees", digest)
        done(protocol.StateCheckResult(self.machine.last_applied, True, [member]))

    def rebuild(
        self, *, force: bool, done: Callable[[protocol.RebuildResult | Failure], None]
    ) -> None:
        if self.unfit is None and not force:
            done(Failure(protocol.ErrorCode.REFUSED, "Nothing is known to be wrong", "--force"))
            return
        self.rebuilt.append(force)
        reason = self.unfit.error if self.unfit is not None else "it was asked to"
        self.unfit = None
        done(protocol.RebuildResult(reason))

    def member_list(self) -> protocol.MemberListResult:
        member = protocol.MemberInfo(self.node_name, f"{MEMBER_ID:016x}", "", "voter")
        return protocol.MemberListResult("c0ffee", self.leader, [member])

    def audit(self, who: str, what: str, outcome: str) -> None:
        self.audits.append((who, what, outcome))

    def happen(self, kind: str) -> None:
        event = protocol.EventItem("2026-01-01T00:00:00.000Z", kind, self.term, kind, {})
        self._events.append(event)
        for subscriber in list(self._subscribers):
            subscriber(event)

    def recent_events(self, limit: int) -> list[protocol.EventItem]:
        return self._events[len(self._events) - min(limit, len(self._events)) :]

    def subscribe_events(
        self, on_event: Callable[[protocol.EventItem], None]
    ) -> Callable[[], None]:
        self._subscribers.append(on_event)
        return lambda: self._subscribers.remove(on_event)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` in a loop of its own."""
    with asyncio.Runner() as runner:
        runner.run(main)


@contextlib.asynccontextmanager
async def serving(host: SingleNode, path: Path) -> AsyncIterator[ApiServer]:
    """An ApiServer of `host` at `path`."""
    server = ApiServer(host, socket_path=path, group=None)
    await server.start()
    try:
        yield server
    finally:
        await server.close()
