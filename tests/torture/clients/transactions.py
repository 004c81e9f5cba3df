"""Transactions over a few keys that are one object: all of one happens, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raft_agent.api import protocol
from raft_agent.api.protocol import Compare, DeleteKey, GetKey, PutKey, Relation, Target
from tests.torture.clients.session import Session

KEYS = 3


def _name(group: str, number: int) -> str:
    return f"{group}/{number}"


async def run(session: Session) -> None:
    seen: dict[str, list[Any]] = {}
    while not session.pace.ends.is_set():
        group = f"t/{session.pace.generation()}/{session.chance.randrange(2)}"
        if session.chance.random() < 0.4:
            values = await _read_all(session, group)
        else:
            values = await _change(session, group, seen.get(group, [None] * KEYS))
        if values is not None:
            seen = {group: values}
        await session.pace.pause(session.chance, 1.5)


async def _read_all(session: Session, group: str) -> list[Any] | None:
    reads: list[protocol.Operation] = [GetKey(_name(group, number)) for number in range(KEYS)]
    told = [["get", number] for number in range(KEYS)]
    return await _txn(session, group, then=reads, told=([], told, []))


async def _change(session: Session, group: str, expected: list[Any]) -> list[Any] | None:
    """Where some keys are as they were last seen, all get new values; else they are read."""
    chance = session.chance
    compared = chance.sample(range(KEYS), chance.randrange(3))
    compares = [_compare(_name(group, n), expected[n]) for n in compared]
    then: list[protocol.Operation] = []
    told: list[list[Any]] = []
    for number in range(KEYS):
        if chance.random() < 0.15:
            then.append(DeleteKey(_name(group, number)))
            told.append(["delete", number])
        else:
            value = session.fresh()
            then.append(PutKey(_name(group, number), value.encode()))
            told.append(["put", number, value, 0])
    otherwise: list[protocol.Operation] = [GetKey(_name(group, n)) for n in range(KEYS)]
    told_compares = [[number, expected[number]] for number in compared]
    told_otherwise = [["get", number] for number in range(KEYS)]
    return await _txn(
        session,
        group,
        compares=compares,
        then=then,
        otherwise=otherwise,
        told=(told_compares, told, told_otherwise),
    )


def _compare(key: str, value: Any) -> Compare:
    if value is None:
        return Compare(Target.CREATE_REVISION, key, Relation.EQUAL, 0)
    return Compare(Target.VALUE, key, Relation.EQUAL, value.encode())


async def _txn(
    session: Session,
    group: str,
    *,
    then: list[protocol.Operation],
    told: tuple[list[Any], list[Any], list[Any]],
    compares: Sequence[Compare] = (),
    otherwise: Sequence[protocol.Operation] = (),
) -> list[Any] | None:
    """The values of all keys when they are known afterwards. `told`: compares, then and otherwise
    as the checker's model has them."""

    def results(found: protocol.TxnResult) -> list[Any]:
        done = then if found.succeeded else otherwise
        return [
            found.succeeded,
            [_result(o, r) for o, r in zip(done, found.results, strict=True)],
        ]

    outcome, found, _ = await session.do(
        "txn",
        lambda: session.client.txn(compares, then, otherwise),
        key=group,
        args=told,
        out=results,
    )
    if outcome != "ok" or found is None:
        return None
    if found.succeeded and otherwise:
        return [step[2] if step[0] == "put" else None for step in told[1]]
    return [_result(GetKey(""), result) for result in found.results]


def _result(operation: protocol.Operation, result: protocol.OperationResult) -> Any:
    match operation:
        case GetKey():
            return result.keys[0].value.decode() if result.keys else None
        case DeleteKey():
            return result.deleted > 0
    return None
