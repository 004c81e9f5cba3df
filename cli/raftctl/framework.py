"""What all commands share: the global options, how a request reaches the agent, how errors end."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from raftctl.errors import NOT_REACHABLE, CommandError, not_in_this_version
from raftctl.output import FORMATS, Output
from raftctl.sockets import find_socket, nodes_at_hand

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from raft_agent.api import protocol
    from raft_agent.api.sync_client import SyncClient

DEFAULT_NODE = "node-0"
DEFAULT_TIMEOUT_S = 5.0

T = TypeVar("T")


@dataclass
class Context:
    """The global options of this call."""

    node: str = DEFAULT_NODE
    socket: Path | None = None
    endpoint: str = ""
    timeout_s: float = DEFAULT_TIMEOUT_S
    forward: bool = False
    form: str = "text"
    color: bool = True
    node_was_given: bool = False
    action: str = field(default="run", init=False)

    @property
    def out(self) -> Output:
        return Output(self.form, self.color)

    @property
    def call(self) -> str:
        """How people call raftctl to reach the same agent."""
        if self.socket is not None:
            return f"raftctl --socket {self.socket}"
        return f"raftctl --node {self.node}"

    def socket_path(self) -> Path:
        """The agent's socket. Raises CommandError when there is none to trust."""
        if self.endpoint:
            raise not_in_this_version("--endpoint (agents over TCP)")
        return self.socket if self.socket is not None else find_socket(self.node)

    @contextmanager
    def client(self, timeout_s: float | None = None) -> Iterator[SyncClient]:
        """A connection to the agent. Raises CommandError when nobody answers."""
        path = self.socket_path()
        from raft_agent.api.sync_client import SyncClient  # noqa: PLC0415  # not for --help

        with agent_errors(self.node, writes=False):
            client = SyncClient(str(path), timeout_s or self.timeout_s)
        with client:
            yield client

    def ask(self, request: protocol.Request, result: type[T]) -> T:
        """The agent's answer to a request that changes nothing."""
        with self.client() as client, agent_errors(self.node, writes=False):
            return _of_type(client.request(request), result)

    def write(self, request: protocol.Request, result: type[T]) -> T:
        """The agent's answer to a request that changes something: no answer means not knowing."""
        with self.client() as client, agent_errors(self.node, writes=True):
            return _of_type(client.request(request), result)


def _of_type(answer: object, result: type[T]) -> T:
    if not isinstance(answer, result):
        raise CommandError(
            f"The agent answered with {type(answer).__name__}, not with {result.__name__}",
            "internal",
            "Is the agent of another version? raftctl --version, raft-agent --version",
        )
    return answer


@contextmanager
def agent_errors(node: str, *, writes: bool) -> Iterator[None]:
    """Turns the client's exceptions into CommandError. `writes`: losing the answer leaves the
    outcome open; a lost answer to a question only means that the agent can't be reached.
    """
    import msgspec  # noqa: PLC0415

    from raft_agent.api import sync_client  # noqa: PLC0415

    try:
        yield
    except sync_client.AgentNotReachable as gone:
        raise CommandError(
            f"Agent {node} is not reachable: {gone}",
            NOT_REACHABLE,
            "Is it running? raftctl doctor looks for the reason",
        ) from gone
    except sync_client.OutcomeUnknown as unknown:
        if writes:
            raise CommandError(
                f"Outcome unknown: {unknown}",
                "unknown_outcome",
                "It may still happen: look before you repeat it",
            ) from unknown
        raise CommandError(f"Agent {node} does not answer: {unknown}", NOT_REACHABLE) from unknown
    except sync_client.RequestFailed as refused:
        raise _refusal(refused) from refused
    except msgspec.MsgspecError as other_version:
        raise CommandError(
            f"The answer of agent {node} can't be read: {other_version}",
            "internal",
            "Is the agent of another version? raftctl --version, raft-agent --version",
        ) from other_version
    except KeyboardInterrupt as stop:
        if writes:
            raise CommandError(
                "Outcome unknown: interrupted before the answer came",
                "unknown_outcome",
                "It may still happen: look before you repeat it",
            ) from stop
        raise


def _refusal(refused: Any) -> CommandError:
    """The agent's refusal; "not leader" in the words that the contract fixes."""
    code = str(refused.code)
    leader = refused.leader or ""
    if code == "not_leader":
        hint = f"Send from leader node: {leader}" if leader else refused.hint
        return CommandError("Not leader - send to leader node", code, hint or "", leader)
    return CommandError(refused.error, code, refused.hint or "", leader)


# --- Global options -------------------------------------------------------------------------------


def _complete_nodes(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem  # noqa: PLC0415

    return [CompletionItem(name) for name in nodes_at_hand() if name.startswith(incomplete)]


def _check_name(value: str) -> str:
    if "/" in value or "\0" in value or value in ("", ".", ".."):
        raise click.BadParameter(f"{value!r} is no node name")
    return value


def _global(
    attribute: str, convert: Callable[[Any], Any] = lambda value: value
) -> Callable[[click.Context, click.Parameter, Any], None]:
    """A callback that puts the option into the Context when it was given (here, or in the
    environment), so that it works before and after the command alike.
    """

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        source = ctx.get_parameter_source(param.name or "")
        if value is None or source is click.core.ParameterSource.DEFAULT:
            return
        context = ctx.ensure_object(Context)
        setattr(context, attribute, convert(value))
        if attribute == "node":
            context.node_was_given = True

    return callback


def _positive_timeout(value: float) -> float:
    if not value > 0:
        raise click.BadParameter("a timeout is more than 0 seconds")
    return value


def _endpoint_files(_value: str) -> str:
    return "tls"


def global_options(*, hidden: bool) -> list[click.Option]:
    """Fresh copies for one command; environment variables belong to the visible ones only."""

    def option(*names: str, env: str | None = None, **more: Any) -> click.Option:
        more.setdefault("default", None)
        # A name of their own: commands have arguments called KEY and the like.
        own_name = "global_" + names[-1].lstrip("-").replace("-", "_")
        return click.Option(
            [*names, own_name],
            hidden=hidden,
            expose_value=False,
            envvar=None if hidden else env,
            **more,
        )

    return [
        option(
            "--node",
            env="RAFTCTL_NODE",
            metavar="NAME",
            callback=_global("node", _check_name),
            shell_complete=_complete_nodes,
            help=f"The node to talk to (default {DEFAULT_NODE}): /run/raft/NAME.sock, else"
            " /tmp/raft-NAME.sock. [RAFTCTL_NODE]",
        ),
        option(
            "--socket",
            env="RAFTCTL_SOCKET",
            metavar="PATH",
            type=click.Path(),
            callback=_global("socket", Path),
            help="The agent's Unix socket, wherever it is. [RAFTCTL_SOCKET]",
        ),
        option(
            "--endpoint",
            env="RAFTCTL_ENDPOINT",
            metavar="HOST:PORT",
            callback=_global("endpoint"),
            help="An agent over TCP (not in this version). [RAFTCTL_ENDPOINT]",
        ),
        *(
            option(
                f"--{name}",
                env=f"RAFTCTL_{name.upper()}",
                metavar="FILE",
                callback=_global("endpoint", _endpoint_files),
                help=f"With --endpoint (not in this version). [RAFTCTL_{name.upper()}]",
            )
            for name in ("cacert", "cert", "key")
        ),
        option(
            "--timeout",
            env="RAFTCTL_TIMEOUT",
            type=float,
            metavar="SECONDS",
            callback=_global("timeout_s", _positive_timeout),
            help=f"How long to wait for an answer (default {DEFAULT_TIMEOUT_S:g})."
            " [RAFTCTL_TIMEOUT]",
        ),
        option(
            "--forward",
            env="RAFTCTL_FORWARD",
            is_flag=True,
            callback=_global("forward"),
            help="A follower passes a write on to the leader instead of refusing it."
            " [RAFTCTL_FORWARD]",
        ),
        option(
            "-o",
            "--output",
            env="RAFTCTL_OUTPUT",
            type=click.Choice(FORMATS),
            callback=_global("form"),
            help="The form of results (default text). [RAFTCTL_OUTPUT]",
        ),
        option(
            "--no-color",
            is_flag=True,
            callback=_global("color", lambda value: not value),
            help="No colours, as with the environment variable NO_COLOR.",
        ),
    ]


# --- Commands -------------------------------------------------------------------------------------


class RaftCommand(click.Command):
    """A command that takes the global options too, shows examples and ends with the contract's
    exit statuses. `action` completes the sentence "Failed to …".
    """

    def __init__(self, *args: Any, action: str = "", examples: str = "", **more: Any) -> None:
        super().__init__(*args, **more)
        self.action = action or (self.name or "run")
        self.examples = examples
        own = {name for param in self.params for name in param.opts}
        self.params += [p for p in global_options(hidden=True) if not own.intersection(p.opts)]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        format_examples(self.examples, formatter)
        super().format_epilog(ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        context = ctx.ensure_object(Context)
        context.action = self.action
        try:
            return super().invoke(ctx)
        except CommandError as failure:
            context.out.error(self.action, failure)
            ctx.exit(failure.exit_status)


def format_examples(examples: str, formatter: click.HelpFormatter) -> None:
    if not examples:
        return
    with formatter.section("Examples"):
        for line in examples.strip().splitlines():
            formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")


class RaftGroup(click.Group):
    """A group of commands (`propose`, `member`, …) with the same help."""

    command_class = RaftCommand

    def __init__(self, *args: Any, examples: str = "", **more: Any) -> None:
        super().__init__(*args, **more)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        format_examples(self.examples, formatter)
        super().format_epilog(ctx, formatter)


class LazyGroup(RaftGroup):
    """Knows its commands by name and one line of help; imports a command's module when it is used.

    `lazy` maps the name to (module, attribute, help).
    """

    def __init__(self, *args: Any, lazy: dict[str, tuple[str, str, str]], **more: Any) -> None:
        super().__init__(*args, **more)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, attribute, _help = self.lazy[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.{attribute} is no command")
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_m, _a, line) in self.lazy.items()])


def current() -> Context:
    """The Context of the command that runs."""
    return click.get_current_context().ensure_object(Context)


class Utf8(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no type argument
    """Text that can be sent: the shell may hand over bytes that are no UTF-8, which must not be
    altered silently.
    """

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"{os.fsencode(text)!r} is not UTF-8", param, ctx)
        return text


class Key(Utf8):
    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        if not text:
            self.fail("a key has at least one character", param, ctx)
        return text
