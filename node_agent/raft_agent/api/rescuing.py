"""What serves a recovery and backups: the host's answer, and a stream of a snapshot's pieces."""

from __future__ import annotations

import asyncio

from raft_agent.api import protocol
from raft_agent.api.caller import Caller, error_of
from raft_agent.api.host import Backup, Failure, Host
from raft_agent.api.protocol import Error, ErrorCode
from raft_agent.api.streams import PUMP_BYTES, Stream

# While a snapshot is being taken every change costs memory, so nobody may sleep over it.
_UNREAD_S = 30.0


def recover(host: Host, caller: Caller, request: protocol.Recover) -> None:
    """Have the host do it, and answer."""

    def done(outcome: protocol.RecoverResult | Failure) -> None:
        caller.in_flight -= 1
        if isinstance(outcome, Failure):
            caller.fail(request.id, error_of(outcome))
        else:
            caller.reply(request.id, outcome)

    caller.in_flight += 1
    host.recover(request, done)


class BackupStream(Stream):
    """The pieces of a snapshot's file, as fast as the client reads. It begins once this node has
    applied all that was acknowledged anywhere before it was asked for."""

    def __init__(self, caller: Caller, request: protocol.SnapshotSave, host: Host) -> None:
        super().__init__(caller, request.id)
        self._host = host
        self._has_read = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.caller.in_flight += 1
        self._host.read_barrier(self._begin)

    def _begin(self, failure: Failure | None) -> None:
        self.caller.in_flight -= 1
        failure = failure or self._host.unfit or self._left()
        backup = self._host.begin_backup() if failure is None else failure
        if isinstance(backup, Failure):
            self.caller.fail(self.stream_id, error_of(backup))
            return
        self._task = asyncio.get_running_loop().create_task(self._run(backup))
        # Not at the task's own end: one that is cancelled before its first step has none.
        self._task.add_done_callback(lambda _: backup.close())
        self._started(backup.index, self._end_task)

    def _left(self) -> Failure | None:
        """Why there is nobody to begin for: the client may have waited for long."""
        if not self.caller.has_left:
            return None
        return Failure(
            ErrorCode.REFUSED,
            "The client closed its side of the connection before the snapshot began",
            "Ask again, and keep the connection open until the last piece has come.",
        )

    def _end_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def pump(self) -> None:
        self.waiting = False
        self._has_read.set()

    async def _run(self, backup: Backup) -> None:
        while True:
            piece = await backup.next_piece()
            if not await self._client_reads():
                self._give_up()
                return
            if piece.is_last and self._host.unfit is not None:
                # Found while it went over, so it may be in there.
                self._cancel = None
                self.end(error_of(self._host.unfit))
                return
            self.caller.push(self.stream_id, piece, len(piece.data))
            if piece.is_last:
                self._cancel = None
                self.stop()
                return

    async def _client_reads(self) -> bool:
        """Wait until there is little that the client has not read; whether that came in time."""
        try:
            async with asyncio.timeout(_UNREAD_S):
                while self.caller.unsent_bytes() >= PUMP_BYTES:
                    self._has_read.clear()
                    self.waiting = True
                    await self._has_read.wait()
        except TimeoutError:
            return False
        return True

    def _give_up(self) -> None:
        self._cancel = None
        what = f"The snapshot was given up: its client read nothing for {_UNREAD_S:.0f} s"
        self.end(Error(what, ErrorCode.BUSY, "Save it to a faster place, and try again."))
