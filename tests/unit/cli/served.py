"""A real API server for raftctl to talk to: in a thread, so that the test can call raftctl."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.server import ApiServer
from raft_agent.consensus.types import RefusalReason
from raft_agent.machine.commands import Command
from raft_agent.runtime.refusals import failure_of
from tests.unit.api.single_node import SingleNode

TIMEOUT_S = 20.0


class Node(SingleNode):
    """A node that can lose its quorum, and whose members change. `fresh_note`: it is in no cluster,
    and says so; `member_note`: it has something to say as a member; `is_alone`: nobody is there to
    hand over to. `others`: the members besides itself, by name; `lags`: how much a learner lacks.
    `refusal`: its answer to each change of the members; `is_mute`: it gives none. `was_removed`:
    it is no member any more, and knows it.
    """

    has_quorum = True
    fresh_note = ""
    member_note = ""
    is_alone = False
    refusal: Failure | None = None
    is_mute = False
    was_removed = False

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.time_ms = time.time_ns() // 1_000_000
        self.others: dict[str, protocol.MemberInfo] = {}
        self.lags: dict[str, int] = {}

    @property
    def waiting_commands(self) -> list[Command]:
        """What `hold_back` holds back."""
        return [command for commands, _ in self._waiting for command in commands]

    def forget_waiting(self) -> None:
        self._waiting.clear()

    def member_list(self) -> protocol.MemberListResult:
        listed = super().member_list()
        if self.fresh_note:
            return msgspec.structs.replace(listed, cluster_id="", members=[])
        members = sorted([*listed.members, *self.others.values()], key=lambda item: item.name)
        return msgspec.structs.replace(listed, members=members, configuration_index=7)

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
        if self.is_mute:
            return
        if self.refusal is not None:
            done(self.refusal)
            return
        note = f"{request.name} is a member already"
        if isinstance(request, protocol.Join):
            if request.name not in self.others:
                note = f"{request.name} was added as a learner"
                state = "" if request.learner else "joining"
                self._put(request.name, request.address, "learner", state)
        elif isinstance(request, protocol.Leave):
            del self.others[request.name]
            note = f"{request.name} was removed"
        elif isinstance(request, protocol.MemberPromote):
            note = f"{request.name} becomes a voter as soon as it has caught up"
            self._put(request.name, self.others[request.name].address, "learner", "joining")
        elif isinstance(request, protocol.MemberUpdate):
            note = f"{request.name} is dialled at {request.address} from now on"
            self._put(request.name, request.address, self.others[request.name].role)
        members = self.member_list().members
        voters = sum(item.role == "voter" for item in members)
        warnings = protocol.voter_warnings(voters)
        done(protocol.MembershipResult(7, warnings, members, note))

    def _put(self, name: str, address: str, role: str, state: str = "") -> None:
        number = int(name.rpartition("-")[2])
        self.others[name] = protocol.MemberInfo(name, f"{number:016x}", address, role, state)

    def have_voter(self, name: str) -> None:
        """A member becomes a voter, or is one from the beginning."""
        known = self.others.get(name)
        self._put(name, known.address if known else "127.0.0.1:1", "voter")

    def status(self) -> protocol.StatusResult:
        members = self.member_list().members
        status = msgspec.structs.replace(
            super().status(),
            note=self.fresh_note or self.member_note,
            members=members,
            removed=self.was_removed,
            voters=[item.name for item in members if item.role == "voter"],
        )
        if not self.fresh_note:
            return status
        return msgspec.structs.replace(status, cluster_id="", members=[], voters=[], leader=None)

    def why_not_leading(self) -> Failure:
        if self.fresh_note:
            return failure_of(RefusalReason.FRESH, "", "")
        return super().why_not_leading()

    def health(self) -> protocol.HealthResult:
        if self.fresh_note:
            return protocol.HealthResult(False, None, 0, [])
        health = super().health()
        for item in self.others.values():
            lag = self.lags.get(item.name, 0)
            member = protocol.HealthMember(
                item.name, item.id, item.address, item.role, "healthy", 3, 100 - lag, lag
            )
            health.members.append(member)
        return msgspec.structs.replace(health, quorum=self.has_quorum)

    def transfer_leadership(self, target: str, done: Callable[[str | Failure], None]) -> None:
        if self.is_alone:
            text = "There is no other voter to hand over to by that name"
            done(Failure(protocol.ErrorCode.NO_SUCH_MEMBER, text, "Members: raftctl member list"))
        else:
            super().transfer_leadership(target, done)


class Served:
    """`host` belongs to the server's loop: change it with `call`."""

    def __init__(self, host: Node, path: Path) -> None:
        self.host = host
        self.path = path
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server: ApiServer | None = None

    def start(self) -> None:
        self.server = ApiServer(self.host, socket_path=self.path, group=None)
        self._wait(self.server.start())

    def stop(self) -> None:
        if self.server is not None:
            self._wait(self.server.close())
            self.server = None

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_S)
        self._loop.close()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs it in the server's loop; its result."""

        async def inside() -> Any:
            return function(*arguments)

        return self._wait(inside())

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT_S)


@contextmanager
def serving(path: Path, name: str = "node-01") -> Iterator[Served]:
    served = Served(Node(name), path)
    try:
        served.start()
        yield served
    finally:
        served.close()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "raftctl.main", *arguments]


def clean_environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAFTCTL_")}
    return {**kept, "TZ": "UTC", "PYTHONUNBUFFERED": "1", **more}


def raftctl(
    *arguments: str,
    stdin: bytes = b"",
    soft_files: int | None = None,
    powerless: bool = False,
    **environment: str,
) -> subprocess.CompletedProcess[bytes]:
    """Runs the program to its end, with `soft_files` as its soft limit of open files. `powerless`:
    file modes hold even for root.
    """
    limited = ["prlimit", f"--nofile={soft_files}:"] if soft_files else []
    if powerless and os.geteuid() == 0:
        limited += ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    return subprocess.run(
        [*limited, *command(*arguments)],
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S * 3,
        env=clean_environment(**environment),
        check=False,
    )


def json_of(done: subprocess.CompletedProcess[bytes]) -> Any:
    return json.loads(done.stdout)


class Follower:
    """A raftctl that goes on until it is interrupted; its lines are read one by one."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(),
            text=True,
        )

    def line(self) -> str:
        """The next line; waits for it. Empty at the end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def note(self) -> str:
        """The next line on standard error."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().rstrip("\n")

    def interrupt(self) -> int:
        """Ctrl+C; the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(TIMEOUT_S)

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
