"""What commands are made of: their groups, their help, and how they end."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
from typing import Any

import click

from raftctl.context import Context
from raftctl.errors import CommandError, paste_ready
from raftctl.options import global_options
from raftctl.output import ResultNotWrittenError

_SENTENCE = 1000  # longer than any first sentence of a help


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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as unknown:
            if not any(isinstance(param, click.Argument) for param in self.params):
                raise
            # click 8.1 ends its sentence without a full stop.
            raise click.UsageError(
                f"{unknown.format_message().rstrip('.')}. A text that starts with - is taken as it"
                f" is with -- in front of it: {ctx.command_path} -- …",
                ctx,
            ) from unknown

    def invoke(self, ctx: click.Context) -> Any:
        context = ctx.ensure_object(Context)
        try:
            return super().invoke(ctx)
        except CommandError as failure:
            status = self._report(context, failure)
        except ResultNotWrittenError as lost:
            if lost.reason.errno == errno.EPIPE and not context.has_written:
                raise lost.reason from lost  # the reader has seen enough: click ends quietly
            status = self._report(context, _unseen(context, lost))
        return ctx.exit(status)

    def _report(self, context: Context, failure: CommandError) -> int:
        """Shows the failure; the exit status."""
        failure.hint = paste_ready(failure.hint, context.call)
        with contextlib.suppress(
            ResultNotWrittenError
        ):  # its prose on standard error is all there is
            context.out.error(self.action, failure)
        return failure.exit_status


def _unseen(context: Context, lost: ResultNotWrittenError) -> CommandError:
    """A result that can't be shown. Exit status 1 would say of a write that nothing changed."""
    error = f"Can't write the result: {lost.reason.strerror}"
    if not context.has_written:
        return CommandError(error)
    return CommandError(error, "unknown_outcome", "It is done; only its result was not written")


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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]  # click takes it away when it looks like an option
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as unknown:
            if not (meant := self._meant(ctx, word)):
                raise
            calls = ", ".join(f"{ctx.command_path} {path}" for path in meant)
            text = f"No such command '{word}'; did you mean: {calls}"
            raise click.UsageError(text, ctx) from unknown

    def _meant(self, ctx: click.Context, word: str) -> list[str]:
        """Commands that are written alike, and those of that name in the groups below."""
        import difflib  # noqa: PLC0415  # not for --help

        names = self.list_commands(ctx)
        groups = [(name, self.get_command(ctx, name)) for name in names]
        below = [
            f"{name} {word}"
            for name, group in groups
            if isinstance(group, click.Group) and word in group.list_commands(ctx)
        ]
        return difflib.get_close_matches(word, names, n=2) + below

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Whole sentences, on a second line where they need one: click would cut them off."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(_SENTENCE))
                    for name, command in found
                    if command
                ]
            )

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
