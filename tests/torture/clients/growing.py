"""What only grows: a set of keys, a list in one key, and a counter."""

from __future__ import annotations

from raft_agent.api import protocol
from raft_agent.api.protocol import Compare, ErrorCode, PutKey, Relation, Target
from tests.torture.clients.session import Session

# A list or a counter is left behind when it has come to about this.
LONG = 60


async def run_set(session: Session) -> None:
    """Elements are keys of their own; whoever lists them sees all that were there before."""
    chance, client = session.chance, session.client
    while not session.pace.ends.is_set():
        prefix = f"s/{session.pace.generation()}/"
        if chance.random() < 0.75:
            element = session.fresh()
            await session.do(
                "add",
                lambda p=prefix, e=element: client.put(p + e, b"x", if_revision=0),
                key=prefix,
                args=[element],
            )
        else:
            await session.do(
                "list",
                lambda p=prefix: client.list(p, limit=5000),
                key=prefix,
                out=lambda found, p=prefix: [item.key.removeprefix(p) for item in found.keys],
            )
        await session.pace.pause(chance, 1.5)


async def run_list(session: Session) -> None:
    """Append to a list by comparing the revision of its key, as often as it takes."""
    number = 0
    while not session.pace.ends.is_set():
        key = f"a/{number}"
        outcome, found, _ = await session.do(
            "get",
            lambda k=key: session.client.get(k),
            key=key,
            out=lambda item: [] if item is None else _elements(item),
        )
        if outcome == "ok":
            elements = [] if found is None else _elements(found)
            if len(elements) >= LONG:
                number += 1
                continue
            if session.chance.random() < 0.6:
                await _append(session, key, elements, 0 if found is None else found.revision)
        await session.pace.pause(session.chance)


def _elements(item: protocol.KeyValue) -> list[str]:
    return item.value.decode().split(",")


async def _append(session: Session, key: str, elements: list[str], revision: int) -> None:
    element = session.fresh()
    value = ",".join([*elements, element]).encode()
    await session.do(
        "append",
        lambda: session.client.put(key, value, if_revision=revision),
        key=key,
        args=[element],
    )


async def run_counter(session: Session) -> None:
    """Add one where the counter is what it was thought to be. Each write is numbered in a session,
    so one that is sent again is applied once."""
    number, value = 0, 0
    while not session.pace.ends.is_set():
        key = f"c/{number}"
        compare = (
            Compare(Target.VALUE, key, Relation.EQUAL, b"%d" % value)
            if value
            else Compare(Target.CREATE_REVISION, key, Relation.EQUAL, 0)
        )
        outcome, found, _ = await session.do(
            "add_one",
            lambda c=compare, k=key, v=value: session.client.txn(
                [c], [PutKey(k, b"%d" % (v + 1))], [protocol.GetKey(k)]
            ),
            key=key,
            args=[value],
            out=lambda done: done.succeeded,
        )
        if outcome == "ok" and found is not None:
            value = value + 1 if found.succeeded else _count(found.results[0])
        else:
            _, item, _ = await session.do(
                "read", lambda k=key: session.client.get(k), key=key, out=_value
            )
            value = value if item is None else int(item.value)
        if value >= LONG:
            number, value = number + 1, 0
        await session.pace.pause(session.chance)


def _count(result: protocol.OperationResult) -> int:
    return int(result.keys[0].value) if result.keys else 0


def _value(item: protocol.KeyValue | None) -> int:
    return 0 if item is None else int(item.value)


async def run_once(session: Session) -> None:
    """Puts to a key of one's own: its version counts how often it was put in truth."""
    number = 0
    while not session.pace.ends.is_set():
        key = f"o/{session.number}/{number}"
        for _ in range(20):
            value = session.fresh()
            _, _, code = await session.do(
                "put",
                lambda k=key, v=value: session.client.put(k, v.encode()),
                key=key,
                args=[value],
            )
            if session.pace.ends.is_set() or code == str(ErrorCode.SESSION_EXPIRED):
                break
            await session.pace.pause(session.chance)
        await session.do(
            "version",
            lambda k=key: session.client.get(k),
            key=key,
            out=lambda item: [0, None] if item is None else [item.version, item.value.decode()],
        )
        number += 1
