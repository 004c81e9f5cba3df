"""One call of raftctl: its global options, and how its requests reach the agent."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from raftctl.errors import NOT_REACHABLE, USAGE, CommandError
from raftctl.output import Output
from raftctl.sockets import DEFAULT_NODE, find_socket, the_only_node

if TYPE_CHECKING:
    from raft_agent.api import protocol
    from raft_agent.api.endpoint import Endpoint
    from raft_agent.api.sync_client import SyncClient

DEFAULT_TIMEOUT_S = 5.0

# Of these, the one on the command line goes before those of the environment.
_PLACES = frozenset({"node", "socket", "endpoint"})
_FILES = ("cacert", "cert", "key")

T = TypeVar("T")


@dataclass
class Context:
    """The global options of this call. `has_written`: the agent has confirmed a change."""

    node: str = DEFAULT_NODE
    socket: Path | None = None
    endpoint: str = ""
    cacert: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""
    timeout_s: float = DEFAULT_TIMEOUT_S
    forward: bool = False
    form: str = "text"
    color: bool = True
    node_was_given: bool = False
    by_flag: set[str] = field(default_factory=set)
    has_written: bool = False

    def set(self, name: str, value: object, by_flag: bool) -> None:
        """A global option that was given, on the command line or in the environment. A node that
        was named on the command line goes before a socket of the environment.
        """
        if by_flag:
            self.by_flag.add(name)
        if name in _PLACES and not by_flag and self.by_flag.intersection(_PLACES):
            return
        if name in _PLACES and by_flag:
            # What the environment says of the other places holds no more.
            if "socket" not in self.by_flag:
                self.socket = None
            if "endpoint" not in self.by_flag:
                self.endpoint = ""
        if name == "node":
            self.node_was_given = True
        setattr(self, name, value)

    @property
    def out(self) -> Output:
        return Output(self.form, self.color)

    @property
    def call(self) -> str:
        """How people call raftctl to reach the same agent."""
        if self.endpoint:
            # What the environment says need not be said again.
            given = [name for name in (*_FILES, "server_name") if name in self.by_flag]
            options = {"endpoint": self.endpoint} | {name: getattr(self, name) for name in given}
            return "raftctl " + " ".join(
                f"--{name.replace('_', '-')} {shlex.quote(value)}"
                for name, value in options.items()
            )
        if self.socket is not None:
            return f"raftctl --socket {shlex.quote(str(self.socket))}"
        return f"raftctl --node {shlex.quote(self.node)}"

    @property
    def agent(self) -> str:
        """What errors call the agent. Behind a socket that was given may be any node."""
        if self.endpoint:
            return f"the agent at {self.endpoint}"
        return "the agent" if self.socket is not None else f"agent {self.node}"

    def target(self) -> str | Endpoint:
        """What a client takes for the agent. Raises CommandError when there is none to trust, or
        when the certificates for it can't be used."""
        unused = [name for name in (*_FILES, "server_name") if name in self.by_flag]
        if unused and not self.endpoint:
            option = f"--{unused[0].replace('_', '-')}"
            raise CommandError(
                f"{option} is for --endpoint, and none was given",
                USAGE,
                "Give --endpoint HOST:PORT, too; the agent's socket on this machine takes no "
                "certificate",
            )
        return self.remote() if self.endpoint else str(self.socket_path())

    def remote(self) -> Endpoint:
        """The agent at `endpoint`. Raises CommandError."""
        missing = [f"--{name}" for name in _FILES if not getattr(self, name)]
        if missing:
            raise CommandError(
                f"--endpoint takes {' and '.join(missing)}, too",
                USAGE,
                "Agents on other machines are reached over TLS only; raftctl cert client makes a "
                "certificate",
            )
        from raft_agent.api.endpoint import Endpoint  # noqa: PLC0415  # TLS is for those who use it
        from raft_agent.tls.errors import TlsError  # noqa: PLC0415
        from raft_agent.tls.files import TlsFiles  # noqa: PLC0415

        files = TlsFiles(self.cacert, self.cert, self.key)
        try:
            return Endpoint(self.endpoint, files, server_name=self.server_name)
        except (TlsError, ValueError) as error:
            raise CommandError(
                str(error),
                "bad_request",
                "Look at --endpoint HOST:PORT, and at the files: raftctl cert show FILE",
            ) from error

    def socket_path(self) -> Path:
        """The agent's socket; without any name that of the only agent here, if there is just one.
        Raises CommandError when there is none to trust."""
        if self.socket is not None:
            return self.socket
        if not self.node_was_given:
            self.node = the_only_node() or self.node
        return find_socket(self.node)

    @contextmanager
    def client(self) -> Iterator[SyncClient]:
        """A connection to the agent. Raises CommandError when nobody answers."""
        target = self.target()
        from raft_agent.api.sync_client import (  # noqa: PLC0415  # not for --help
            AgentNotReachable,
            SyncClient,
        )

        with agent_errors(self.agent, writes=False):
            try:
                client = SyncClient(target, self.timeout_s)
            except AgentNotReachable:
                if isinstance(target, str):
                    self._refuse_socket(Path(target))
                raise
        with client:
            yield client

    def _refuse_socket(self, path: Path) -> None:
        """Raises CommandError when it is not the agent but the socket's file that is the reason."""
        from raftctl import reach  # noqa: PLC0415

        if found := reach.not_a_socket(path):
            hint = "Give the agent's socket: --socket PATH, or its name: --node NAME"
            raise CommandError(found, NOT_REACHABLE, hint)
        if found := reach.denied(path):
            raise CommandError(found, NOT_REACHABLE, reach.denied_hint(f"{self.call} {_typed()}"))

    def ask(self, request: protocol.Request, result: type[T]) -> T:
        """The agent's answer to a request that changes nothing."""
        with self.client() as client, agent_errors(self.agent, writes=False):
            return _of_type(client.request(request), result)

    def write(self, request: protocol.Request, result: type[T]) -> T:
        """The agent's answer to a request that changes something. Those that can be applied once
        however often they are sent are sent until they are answered. No answer means not knowing.
        """
        try:
            with self.client() as client, agent_errors(self.agent, writes=True):
                answer = _of_type(client.write(request, is_patient=False), result)
        except CommandError as refused:
            if refused.leader and getattr(request, "forward", True) is False:
                way = f"{self.call} --forward …"
                refused.other_way = f"Or have this node pass it on: {way}"
            raise
        self.has_written = True
        return answer


def _of_type(answer: object, result: type[T]) -> T:
    if not isinstance(answer, result):
        raise CommandError(
            f"The agent answered with {type(answer).__name__}, not with {result.__name__}",
            "internal",
            "Is the agent of another version? raftctl --version, raft-agent --version",
        )
    return answer


def _typed() -> str:
    """The command that runs, without what it was given: "propose put …"."""
    ctx = click.get_current_context(silent=True)
    if ctx is None or ctx.parent is None:
        return "status"
    path = ctx.command_path.partition(" ")[2]
    takes_more = any(isinstance(param, click.Argument) for param in ctx.command.params)
    return f"{ctx.info_name} …" if not path else path + " …" * takes_more


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


@contextmanager
def agent_errors(agent: str, *, writes: bool) -> Iterator[None]:
    """Turns the client's exceptions into CommandError. `writes`: losing the answer leaves the
    outcome open; a lost answer to a question only means that the agent can't be reached.
    """
    from raft_agent.api import sync_client  # noqa: PLC0415

    try:
        yield
    except sync_client.AnswerUnreadable as other_version:
        raise CommandError(
            f"{_capital(agent)} answered, but {other_version}",
            "internal",
            "Is the agent of another version? raftctl --version, raft-agent --version",
        ) from other_version
    except sync_client.AgentNotReachable as gone:
        raise CommandError(
            f"{_capital(agent)} is not reachable: {gone}",
            NOT_REACHABLE,
            _reaching_hint(gone),
        ) from gone
    except sync_client.OutcomeUnknown as unknown:
        if writes:
            raise CommandError(
                f"Outcome unknown: {unknown}",
                "unknown_outcome",
                unknown.hint or "It may still happen: look before you repeat it",
            ) from unknown
        raise CommandError(
            f"{_capital(agent)} does not answer: {unknown}", NOT_REACHABLE, unknown.hint
        ) from unknown
    except sync_client.RequestFailed as refused:
        raise _refusal(refused) from refused
    except KeyboardInterrupt as stop:
        if writes:
            raise CommandError(
                "Outcome unknown: interrupted before the answer came",
                "unknown_outcome",
                "It may still happen: look before you repeat it",
            ) from stop
        raise


def _reaching_hint(gone: BaseException) -> str:
    cause: BaseException | None = gone
    while cause is not None:
        if getattr(cause, "reason", "") == "tls_name":
            return (
                "Give the name of the node that it is: --server-name NAME; or have a certificate "
                "made with this host: raftctl cert node NAME HOST"
            )
        cause = cause.__cause__
    return "Is it running? raftctl doctor looks for the reason"


def _refusal(refused: Any) -> CommandError:
    """The agent's refusal; "not leader" in the words that the contract fixes."""
    code = str(refused.code)
    leader = refused.leader or ""
    if code == "not_leader":
        hint = f"Send from leader node: {leader}" if leader else refused.hint
        return CommandError("Not leader - send to leader node", code, hint or "", leader)
    if code == "compacted":
        hint = (
            f"Changes are kept --from-revision {refused.oldest} on; what the keys are now: "
            "raftctl -o json propose list PREFIX"
        )
        return CommandError(refused.error, code, hint)
    return CommandError(refused.error, code, refused.hint or "", leader)


def current() -> Context:
    """The Context of the command that runs."""
    return click.get_current_context().ensure_object(Context)
