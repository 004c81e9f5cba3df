"""The global options: in front of the command and, hidden in its help, behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from raftctl.context import Context
from raftctl.output import FORMATS
from raftctl.quantities import Seconds, Switch
from raftctl.sockets import nodes_at_hand

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_Callback = Callable[[click.Context, click.Parameter, Any], None]


class _Spec(NamedTuple):
    """One option; `more` goes to click as it is."""

    names: tuple[str, ...]
    text: str
    callback: _Callback
    more: dict[str, Any]


def _complete_nodes(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem  # noqa: PLC0415

    return [CompletionItem(name) for name in nodes_at_hand() if name.startswith(incomplete)]


def _check_name(value: str) -> str:
    if "/" in value or "\0" in value or value in ("", ".", ".."):
        raise click.BadParameter(f"{value!r} is not a node name")
    return value


def _store(attribute: str, convert: Callable[[Any], Any] = lambda value: value) -> _Callback:
    """A callback that puts the option into the Context when it was given (here, or in the
    environment), so that it works before and after the command alike.
    """

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        source = ctx.get_parameter_source(param.name or "")
        if value is None or source is click.core.ParameterSource.DEFAULT:
            return
        by_flag = source is click.core.ParameterSource.COMMANDLINE
        ctx.ensure_object(Context).set(attribute, convert(value), by_flag)

    return callback


def _socket_path(value: str) -> Path:
    if not value:
        raise click.BadParameter("the path is empty")
    return Path(value)


def _agent_options() -> list[_Spec]:
    """Which agent is talked to."""
    files = {
        "cacert": "the authorities to trust",
        "cert": "your certificate",
        "key": "its key",
    }
    return [
        _Spec(
            ("--node",),
            "The node to talk to (default node-0, or the only agent here): /run/raft/NAME.sock, "
            "else /tmp/raft-NAME.sock.",
            _store("node", _check_name),
            {"metavar": "NAME", "shell_complete": _complete_nodes},
        ),
        _Spec(
            ("--socket",),
            "The agent's Unix socket, wherever it is.",
            _store("socket", _socket_path),
            {"metavar": "PATH"},
        ),
        _Spec(
            ("--endpoint",),
            "An agent on another machine, at the address of its listen_addr, over TLS.",
            _store("endpoint"),
            {"metavar": "HOST:PORT"},
        ),
        *(
            _Spec((f"--{name}",), f"With --endpoint: {text}.", _store(name), {"metavar": "FILE"})
            for name, text in files.items()
        ),
        _Spec(
            ("--server-name",),
            "With --endpoint: the name in the agent's certificate, when it isn't HOST.",
            _store("server_name"),
            {"metavar": "NAME"},
        ),
    ]


def _call_options() -> list[_Spec]:
    """How it is talked to, and how the results are shown."""
    return [
        _Spec(
            ("--timeout",),
            "How long to wait for an answer (default 5).",
            _store("timeout_s"),
            {"metavar": "SECONDS", "type": Seconds()},
        ),
        _Spec(
            ("--forward",),
            "A follower passes a write on to the leader instead of refusing it.",
            _store("forward"),
            {"is_flag": True, "type": Switch()},
        ),
        _Spec(
            ("-o", "--output"),
            "The form of results (default text).",
            _store("form"),
            {"type": click.Choice(FORMATS)},
        ),
        _Spec(
            ("--no-color",),
            "No colours, as with the environment variable NO_COLOR.",
            _store("color", lambda value: not value),
            {"is_flag": True},
        ),
    ]


def global_options(*, hidden: bool) -> list[click.Option]:
    """Fresh copies for one command; only the visible ones read the environment."""
    options = []
    for spec in (*_agent_options(), *_call_options()):
        word = spec.names[-1].lstrip("-").replace("-", "_")
        variable = None if word == "no_color" else f"RAFTCTL_{word.upper()}"
        options.append(
            click.Option(
                # A name of their own: commands have arguments called KEY and the like.
                [*spec.names, f"global_{word}"],
                help=f"{spec.text} [{variable}]" if variable else spec.text,
                callback=spec.callback,
                hidden=hidden,
                expose_value=False,
                envvar=None if hidden else variable,
                default=None,
                **spec.more,
            )
        )
    return options
