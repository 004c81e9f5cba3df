"""Requests to begin with: one of each op, two where an op has forms that differ."""

from __future__ import annotations

from raft_agent.api import protocol
from raft_agent.api.protocol import (
    Compare,
    DeleteKey,
    DeletePrefix,
    GetKey,
    ListKeys,
    OneShot,
    PutKey,
    Relation,
    SessionRef,
    Target,
)

_COMPARES = [
    Compare(Target.VALUE, "a", Relation.EQUAL, b"1"),
    Compare(Target.VERSION, "b", Relation.GREATER, 7),
]
_THEN = [PutKey("a", b"2"), PutKey("c", b"3", 8), DeleteKey("b"), DeletePrefix("d/")]
_ELSE = [GetKey("a"), ListKeys("d/", 5)]

_SAMPLES: tuple[protocol.Request, ...] = (
    protocol.Status(1),
    protocol.Send(2, "Hello ✓", once=OneShot(bytes(16), 99)),
    protocol.Messages(3, 5),
    protocol.WatchMessages(4, 0),
    protocol.Put(5, "key", b"value\0", 3, True, SessionRef(1, 2, 3), 4),
    protocol.Delete(6, "key"),
    protocol.Get(7, "key", protocol.Consistency.STALE),
    protocol.List(8, "k", 3, "kex"),
    protocol.WatchKeys(9, "k", True, 5, 100),
    protocol.Txn(10, _COMPARES, _THEN, _ELSE, True),
    protocol.LeaseGrant(11, 5000),
    protocol.LeaseKeepalive(12, 5),
    protocol.LeaseRevoke(13, 5),
    protocol.LeaseList(14),
    protocol.LeaseShow(15, 5),
    protocol.OpenSession(16, 5000),
    protocol.KeepSession(17, 1),
    protocol.CloseSession(18, 1),
    protocol.SettingsList(19),
    protocol.SettingSet(20, "messages_keep", 5),
    protocol.MemberList(21),
    protocol.Join(22, "node-04", "127.0.0.1:4444"),
    protocol.Leave(23, "node-04"),
    protocol.MemberPromote(24, "node-04"),
    protocol.MemberUpdate(25, "node-04", "127.0.0.1:4445"),
    protocol.JoinChallenge(26),
    protocol.JoinSelf(27, "node-04", "127.0.0.1:4444", bytes(16), bytes(32)),
    protocol.LeaderTransfer(28, "node-02"),
    protocol.Health(29),
    protocol.Vitals(30),
    protocol.Events(31, 5, True),
    protocol.Kernel(32),
    protocol.FaultSet(33, "node-02", 5, 500),
    protocol.FaultHeal(34),
    protocol.Cancel(35, 9),
    protocol.SnapshotSave(36),
    protocol.Recover(37, True),
    protocol.StateCheck(38, False),
    protocol.Rebuild(39, True),
    protocol.FaultFlip(40, "key"),
    protocol.ExportAdd(41, "fw/deny/", "deny_v4", "lpm_trie", "ipv4_prefix", "u32", 100),
    protocol.ExportRemove(42, "deny_v4"),
    protocol.ExportList(43),
    protocol.ExportDump(44, "deny_v4", 10),
    protocol.ExportWatch(45, "deny_v4"),
)


def requests() -> tuple[protocol.Request, ...]:
    """One of each op that the protocol has, and no op twice."""
    return _SAMPLES
