"""Where values come from: the file, the environment, `--set`. Later ones win, key by key."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from raft_agent import logs
from raft_agent.config.errors import ConfigError, Problem
from raft_agent.config.positions import KeyPath, find_lines, line_of_syntax_error
from raft_agent.config.schema import (
    EXPORT_FIELDS,
    EXPORTS,
    FIELDS,
    PEER_FIELDS,
    PEERS,
    SECRET_NAMES,
    Field,
    environment_name,
)

_TEST_EXCUSES = "RAFT_TEST_EXCUSES"


def _check_excuses(text: str) -> None:
    """Raises ValueError with a sentence when election timers have no such excuses."""
    if text not in ("", "all", "stamp", "none"):
        raise ValueError(
            f'must be all, stamp or none; "{text}" is none of them. It is for tests: unset it'
        )


# Read by the log set-up, and by the engine; they look like keys of a section but are none.
_NOT_KEYS: Mapping[str, Callable[[str], object]] = {
    "RAFT_LOG": logs.parse_levels,
    "RAFT_LOG_FORMAT": logs.check_format,
    _TEST_EXCUSES: _check_excuses,
}


# What people write is a hundredth of it.
MAX_FILE_BYTES = 64 << 10


class Value(msgspec.Struct, frozen=True):
    """A raw value and where it was said; `path` leads to the line when that is the file."""

    value: Any
    where: str = ""
    path: KeyPath = ()


class Sources:
    """Collects raw values and everything that is wrong with how they were given."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.sections: dict[str, dict[str, Value]] = {section: {} for section in FIELDS}
        self.peers: list[dict[str, Value]] = []
        self.exports: list[dict[str, Value]] = []
        self.notes: list[str] = []
        self._problems: list[tuple[str, KeyPath, str]] = []
        self._text = ""

    def problem(self, value: Value, text: str) -> None:
        self._problems.append((value.where, value.path, text))

    def missing(self, path: KeyPath, text: str) -> None:
        """A problem of the file itself; `path` as near as it exists."""
        self._problems.append(("", path, text))

    def raise_problems(self) -> None:
        """Raises ConfigError with all problems so far, those of the file in the file's order."""
        if not self._problems:
            return
        lines = find_lines(self._text)
        placed = []
        for where, path, text in self._problems:
            line = 0 if where else _nearest_line(lines, path)
            at = where or (f"{self.file}:{line}" if line else str(self.file))
            placed.append((bool(where), line, Problem(at, text)))
        placed.sort(key=lambda item: item[:2])
        raise ConfigError(problem for _, _, problem in placed)

    # --- the file ---

    def read_file(self) -> None:
        """Raises ConfigError at once when the file can't be read or is no TOML."""
        try:
            with self.file.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            if len(data) > MAX_FILE_BYTES:
                text = f"is larger than {MAX_FILE_BYTES} bytes: is it the right file?"
                raise ConfigError([Problem(str(self.file), text)])
            self._text = data.decode()
        except OSError as error:
            raise ConfigError(
                [Problem(str(self.file), f"can't be read: {error.strerror}")]
            ) from None
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise ConfigError([Problem(f"{self.file}:{line}", "is not UTF-8 text")]) from None
        try:
            document = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            line, message = line_of_syntax_error(error, self._text, _may_be_secret)
            text = f"is not valid TOML: {message}"
            raise ConfigError([Problem(f"{self.file}:{line}", text)]) from None
        except (ValueError, RecursionError) as error:
            # tomllib leaves these to whoever calls it: a number of thousands of digits, or
            # thousands of brackets.
            text = f"is not valid TOML for this program: {error}"
            raise ConfigError([Problem(str(self.file), text)]) from None
        for section, content in document.items():
            if section == PEERS:
                self._take_peers(content)
            elif section not in FIELDS:
                self.missing((section,), _unknown_section(section, content))
            elif not isinstance(content, dict):
                self.missing((section,), f"{section} must be a table: write [{section}]")
            else:
                self._take_table(section, content)

    def _take_table(self, section: str, content: dict[str, Any]) -> None:
        for name, raw in content.items():
            if name in FIELDS[section]:
                self.sections[section][name] = Value(raw, path=(section, name))
            elif (section, name) == EXPORTS:
                self._take_exports(raw)
            else:
                self.missing((section, name), unknown_key(f"{section}.{name}"))

    def _take_peers(self, content: object) -> None:
        if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
            self.missing(
                (PEERS,), "peers must be tables: write [[peers]] before each id and address"
            )
            return
        for position, item in enumerate(content):
            path: KeyPath = (PEERS, position)
            for name in item.keys() - PEER_FIELDS.keys():
                text = f"unknown key {name} of a peer: a peer has {' and '.join(PEER_FIELDS)}"
                self.missing((*path, name), text)
            for name in PEER_FIELDS.keys() - item.keys():
                self.missing(path, f"this peer has no {name}")
            self.peers.append(
                {
                    name: Value(item[name], path=(*path, name))
                    for name in PEER_FIELDS
                    if name in item
                }
            )

    def _take_exports(self, content: object) -> None:
        if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
            text = "ebpf.export must be tables: write [[ebpf.export]] before the keys of each"
            self.missing(EXPORTS, text)
            return
        for position, item in enumerate(content):
            path: KeyPath = (*EXPORTS, position)
            for name in item.keys() - EXPORT_FIELDS.keys():
                known = ", ".join(EXPORT_FIELDS)
                self.missing(
                    (*path, name), f"unknown key {name} of an exported map; they are {known}"
                )
            for name, field in EXPORT_FIELDS.items():
                if field.required and name not in item:
                    self.missing(path, f"this exported map has no {name}")
            self.exports.append(
                {
                    name: Value(item[name], path=(*path, name))
                    for name in EXPORT_FIELDS
                    if name in item
                }
            )

    # --- environment and --set ---

    def read_environment(self, environ: Mapping[str, str]) -> None:
        """An empty variable counts as not set, as templates of units and pods leave them."""
        known = {}
        for section, fields in FIELDS.items():
            for name, field in fields.items():
                known[environment_name(section, name)] = (section, field)
        for variable, text in environ.items():
            if not variable.startswith("RAFT_") or not text.strip():
                continue
            where = f"{variable} in the environment"
            if variable in _NOT_KEYS:
                try:
                    _NOT_KEYS[variable](text)
                except ValueError as error:
                    self._problems.append((where, (), str(error)))
                if variable == _TEST_EXCUSES and text not in ("", "all"):
                    self.notes.append(
                        f"{variable} is for tests: with {text!r} a node that was held up stands "
                        "for election without need; unset it"
                    )
            elif variable == "RAFT_PEERS":
                self._take_peer_list(text, where)
            elif variable in known:
                section, field = known[variable]
                self._take_text(section, field, text, where)
            elif near := difflib.get_close_matches(variable, [*known, "RAFT_PEERS"], 1, 0.85):
                # Not refused: Kubernetes puts variables for every service into every pod, and a
                # service may well be named raft-server.
                self.notes.append(f"{where} is not a key and has no effect; {near[0]} is one")

    def read_overrides(self, overrides: Sequence[str]) -> None:
        """`section.key=value`; of several for one key the last one wins."""
        for override in overrides:
            key, equals, text = override.partition("=")
            key = key.strip()
            section, _, name = key.partition(".")
            where = f"--set {key}=…" if _may_be_secret(key) else f"--set {override}"
            if not equals:
                # What stands behind a blank may be the value, and that a secret.
                where = f"--set {override.split()[0]} …" if len(override.split()) > 1 else where
                self._problems.append((where, (), "must have the form section.key=value"))
            elif key == PEERS:
                self._take_peer_list(text, where)
            elif section not in FIELDS or name not in FIELDS[section]:
                self._problems.append((where, (), unknown_key(key)))
            elif text == "":
                self.sections[section].pop(name, None)  # back to the default
            else:
                self._take_text(section, FIELDS[section][name], text, where)

    def _take_text(self, section: str, field: Field, text: str, where: str) -> None:
        value: object = text
        if field.kind is int:
            value = int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()) else text
        elif field.kind is bool:
            words = {"true": True, "1": True, "false": False, "0": False}
            value = words.get(text.strip().lower(), text)
        elif field.kind is tuple:
            value = [item.strip() for item in text.split(",") if item.strip()]
        self.sections[section][field.name] = Value(value, where)

    def _take_peer_list(self, text: str, where: str) -> None:
        """node-02=10.0.0.2:5555,node-03=10.0.0.3:5555 in place of the file's peers."""
        self.peers = []
        for item in filter(None, (word.strip() for word in text.split(","))):
            name, equals, address = item.partition("=")
            if not equals:
                text = f'must be a list like "node-02=10.0.0.2:5555,…"; "{item}" has no "="'
                self._problems.append((where, (), text))
                self.peers.append({})
                continue
            self.peers.append({"id": Value(name, where), "address": Value(address, where)})


def _may_be_secret(key: str) -> bool:
    """Whether the value of `key` is not to be shown; one that is misspelt may be meant for it."""
    name = key.rpartition(".")[2].lower()
    return bool(difflib.get_close_matches(name, SECRET_NAMES, 1, 0.7))


def unknown_key(key: str) -> str:
    """Says that `key` ("section.name" or "name") does not exist, and what may have been meant."""
    name = key.rpartition(".")[2]
    every = [f"{section}.{known}" for section, fields in FIELDS.items() for known in fields]
    elsewhere = [full for full in every if full.partition(".")[2] == name]
    # Compared without the section: its letters would make everything in it look alike.
    names = difflib.get_close_matches(name, [full.partition(".")[2] for full in every], 1, 0.7)
    near = elsewhere or [full for full in every if full.partition(".")[2] in names]
    if near:
        return f"unknown key {key}; did you mean {near[0]}?"
    section, dot, _ = key.partition(".")
    if section in FIELDS and dot:
        return f"unknown key {key}; [{section}] has {', '.join(FIELDS[section])}"
    how = "" if dot else ": keys are in sections, as in server.node_id"
    return f"unknown key {key}{how}; the sections are {', '.join([*FIELDS, PEERS])}"


def _unknown_section(section: str, content: object) -> str:
    if not isinstance(content, dict | list):
        return unknown_key(section)
    every = [*FIELDS, PEERS]
    near = difflib.get_close_matches(section, every, 1, 0.6)
    known = f"did you mean {near[0]}?" if near else f"there are {', '.join(every)}"
    return f"unknown section {section}; {known}"


def _nearest_line(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)
