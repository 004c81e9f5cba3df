"""The file of a transaction: JSON, or lines of text.

Text has the sections "compare", "then" and "else", each a word on a line of its own, and an item on
each line below; words are quoted as in a shell, and # begins a comment:

    compare
      value balance = 5
      absent spent
    then
      put balance 4
      put spent 1 --lease 7
    else
      get balance

JSON has the same three as lists of objects:

    {"compare": [{"key": "balance", "value": "5"}, {"key": "spent", "exists": false}],
     "then": [{"put": "balance", "value": "4"}, {"put": "spent", "value": "1", "lease": 7}],
     "else": [{"get": "balance"}]}
"""

from __future__ import annotations

import base64
import binascii
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from raft_agent.api.protocol import (
    Compare,
    DeleteKey,
    DeletePrefix,
    GetKey,
    ListKeys,
    Operation,
    PutKey,
    Relation,
    Target,
)

_SECTIONS = ("compare", "then", "else")
_RELATIONS = {str(relation): relation for relation in Relation} | {"==": Relation.EQUAL}
_MAX_NUMBER = (1 << 63) - 1


class TransactionFileError(ValueError):
    """The file is no transaction; the text says where and what would be right."""


@dataclass
class Transaction:
    """What is to be done when all compares hold, and otherwise."""

    compares: list[Compare] = field(default_factory=list)
    then: list[Operation] = field(default_factory=list)
    otherwise: list[Operation] = field(default_factory=list)


def parse(data: bytes) -> Transaction:
    """The transaction that a file holds, in either form. Raises TransactionFileError."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise TransactionFileError(
            f"byte {error.start} is no UTF-8; in JSON other bytes are a value_base64"
        ) from error
    return _from_json(text) if text.lstrip().startswith("{") else _from_text(text)


def _relation(word: object) -> Relation:
    relation = _RELATIONS.get(str(word))
    if relation is None:
        raise TransactionFileError(f"{word!r} is no comparison; there are = != < >")
    return relation


def _number(word: object) -> int:
    try:
        number = int(word) if isinstance(word, str | int) else -1
    except ValueError:
        number = -1
    if isinstance(word, bool) or not 0 <= number <= _MAX_NUMBER:
        raise TransactionFileError(f"{word!r} is not a whole number from 0 on")
    return number


def _existence(key: str, exists: bool) -> Compare:
    relation = Relation.NOT_EQUAL if exists else Relation.EQUAL
    return Compare(Target.CREATE_REVISION, key, relation, 0)


# --- text -----------------------------------------------------------------------------------------


def _from_text(text: str) -> Transaction:
    transaction = Transaction()
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            words = shlex.split(line, comments=True)
            if not words:
                continue
            name = words[0].removesuffix(":")
            if len(words) == 1 and name in _SECTIONS:
                section = name
            elif section == "compare":
                transaction.compares.append(_text_compare(words))
            elif section:
                operations = transaction.then if section == "then" else transaction.otherwise
                operations.append(_text_operation(words))
            else:
                raise TransactionFileError('the first line must be "compare" or "then"')
        except ValueError as error:  # also TransactionFileError
            raise TransactionFileError(f"line {number}: {error}") from error
    return transaction


def _text_compare(words: Sequence[str]) -> Compare:
    match words:
        case ["absent", key]:
            return _existence(key, exists=False)
        case ["exists", key]:
            return _existence(key, exists=True)
        case [target, key, relation, operand] if target in Target.__members__.values():
            value = operand.encode() if target == "value" else _number(operand)
            return Compare(Target(target), key, _relation(relation), value)
    raise TransactionFileError(
        f"{shlex.join(words)!r} is no compare; it is TARGET KEY =|!=|<|> OPERAND with the target "
        f"{', '.join(Target)}, or absent KEY, or exists KEY"
    )


def _text_operation(words: Sequence[str]) -> Operation:
    match words:
        case ["put", key, value]:
            return PutKey(key, value.encode())
        case ["put", key, value, "--lease", lease]:
            return PutKey(key, value.encode(), _number(lease))
        case ["delete", key]:
            return DeleteKey(key)
        case ["delete-prefix", prefix]:
            return DeletePrefix(prefix)
        case ["get", key]:
            return GetKey(key)
        case ["list", prefix]:
            return ListKeys(prefix)
        case ["list", prefix, "--limit", limit]:
            return ListKeys(prefix, _number(limit))
    raise TransactionFileError(
        f"{shlex.join(words)!r} is no operation; there are put KEY VALUE [--lease ID], delete KEY, "
        "delete-prefix PREFIX, get KEY, list PREFIX [--limit N]"
    )


# --- JSON -----------------------------------------------------------------------------------------


def _from_json(text: str) -> Transaction:
    try:
        document: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise TransactionFileError(f"it is no JSON: {error}") from error
    unknown = set(document) - set(_SECTIONS)
    if unknown:
        raise TransactionFileError(
            f"{min(unknown)!r} is no part of a transaction; there are {', '.join(_SECTIONS)}"
        )
    transaction = Transaction()
    for place, item in _items(document, "compare"):
        transaction.compares.append(_placed(place, item, _json_compare))
    for section, operations in (("then", transaction.then), ("else", transaction.otherwise)):
        for place, item in _items(document, section):
            operations.append(_placed(place, item, _json_operation))
    return transaction


def _items(document: dict[str, Any], section: str) -> list[tuple[str, Any]]:
    items = document.get(section, [])
    if not isinstance(items, list):
        raise TransactionFileError(f"{section} is no list")
    return [(f"{section}[{number}]", item) for number, item in enumerate(items)]


def _placed(place: str, item: Any, read: Any) -> Any:
    try:
        if not isinstance(item, dict):
            raise TransactionFileError("it is no object")
        fields = dict(item)
        result = read(fields)
        if fields:
            raise TransactionFileError(f"the field {min(fields)!r} does not belong here")
    except TransactionFileError as error:
        raise TransactionFileError(f"{place}: {error}") from error
    return result


def _take_text(fields: dict[str, Any], name: str) -> str:
    text = fields.pop(name, None)
    if not isinstance(text, str):
        raise TransactionFileError(f"{name!r} has to be there, and a text")
    return text


def _take_value(fields: dict[str, Any]) -> bytes:
    if "value_base64" not in fields:
        return _take_text(fields, "value").encode()
    try:
        return base64.b64decode(_take_text(fields, "value_base64"), validate=True)
    except binascii.Error as error:
        raise TransactionFileError(f"'value_base64' is no base64: {error}") from error


def _json_compare(fields: dict[str, Any]) -> Compare:
    key = _take_text(fields, "key")
    if "exists" in fields:
        exists = fields.pop("exists")
        if not isinstance(exists, bool):
            raise TransactionFileError("'exists' is true or false")
        return _existence(key, exists)
    relation = _relation(fields.pop("op", "="))
    if "value" in fields or "value_base64" in fields:
        return Compare(Target.VALUE, key, relation, _take_value(fields))
    for target in Target:
        if target in fields:
            return Compare(target, key, relation, _number(fields.pop(target)))
    raise TransactionFileError(f"what is compared is missing: {', '.join(Target)} or exists")


def _json_operation(fields: dict[str, Any]) -> Operation:
    if "put" in fields:
        key = _take_text(fields, "put")
        return PutKey(key, _take_value(fields), _number(fields.pop("lease", 0)))
    if "delete" in fields:
        return DeleteKey(_take_text(fields, "delete"))
    if "delete_prefix" in fields:
        return DeletePrefix(_take_text(fields, "delete_prefix"))
    if "get" in fields:
        return GetKey(_take_text(fields, "get"))
    if "list" in fields:
        return ListKeys(_take_text(fields, "list"), _number(fields.pop("limit", 0)))
    raise TransactionFileError("it is no operation: put, delete, delete_prefix, get or list")
