"""Keys that stand in a map of the kernel on every machine."""

from __future__ import annotations

from tests.torture.clients.session import Session

PREFIX = "fw/deny/"
MAP = "deny_v4"
_NETWORKS = 200


async def run(session: Session) -> None:
    chance, client = session.chance, session.client
    while not session.pace.ends.is_set():
        key = f"{PREFIX}10.{chance.randrange(_NETWORKS)}.0.0/16"
        if chance.random() < 0.3:
            await session.do(
                "delete", lambda k=key: client.delete(k), key=key, out=lambda d: d.deleted > 0
            )
        else:
            value = b"%d" % chance.randrange(1000)
            await session.do(
                "put", lambda k=key, v=value: client.put(k, v), key=key, args=[value.decode()]
            )
        await session.pace.pause(chance)
