"""What is wrong with a configuration, all of it at once."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from raft_agent.logs import escape_controls


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong: where ("raft.toml:12", "RAFT_SERVER_NODE_ID in the environment"),
    and a sentence that says what and what would be right.
    """

    where: str
    text: str

    def __str__(self) -> str:
        return escape_controls(f"{self.where}: {self.text}")


class ConfigError(Exception):
    """The configuration was refused; `problems` is never empty and str() has a line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
