"""A frame in which not every request could be read: which ones can be served or answered still."""

from __future__ import annotations

from typing import Any

import msgspec

from raft_agent.api import protocol
from raft_agent.api.protocol import Error, ErrorCode

_RAW_LIST = msgspec.msgpack.Decoder(list[msgspec.Raw])
_RAW_LIST_JSON = msgspec.json.Decoder(list[msgspec.Raw])
_REQUEST_JSON = msgspec.json.Decoder(protocol.Request)
_ANY = msgspec.msgpack.Decoder()
_ANY_JSON = msgspec.json.Decoder()

_OPS = frozenset(kind.__struct_config__.tag for kind in protocol.RESULT_TYPES)

_BAD = (ValueError, RecursionError, OverflowError)


class UnreadableError(ValueError):
    """A frame whose requests can't be answered, because not even their ids can be told."""


def decode_one_by_one(body: bytes, is_json: bool) -> list[protocol.Request | tuple[int, Error]]:
    """The requests in their order, and (id, error) in place of each that can't be served.

    Raises UnreadableError when the body is no array, or there is a request without an id.
    """
    raw_list = _RAW_LIST_JSON if is_json else _RAW_LIST
    try:
        items = raw_list.decode(body)
    except _BAD as error:
        raise UnreadableError(f"frame body is no array of requests: {error}") from error
    return [_decode(bytes(item), is_json) for item in items]


def decode_request(body: bytes) -> protocol.Request | tuple[int, Error]:
    """One request in MessagePack. Raises UnreadableError when it has no id."""
    return _decode(body, is_json=False)


def _decode(item: bytes, is_json: bool) -> protocol.Request | tuple[int, Error]:
    decoder = _REQUEST_JSON if is_json else protocol.REQUEST_DECODER
    try:
        request: protocol.Request = decoder.decode(item)
    except _BAD as error:
        return _explain(item, is_json, str(error))
    return request


def _explain(item: bytes, is_json: bool, reason: str) -> tuple[int, Error]:
    try:
        fields: Any = (_ANY_JSON if is_json else _ANY).decode(item)
    except _BAD as error:
        raise UnreadableError(f"request can't be read: {error}") from error
    if not isinstance(fields, list) or len(fields) < 2:
        raise UnreadableError("request is no array of an op, an id and fields")
    op, request_id = fields[:2]
    if type(request_id) is not int or not 0 <= request_id < 1 << 63:
        raise UnreadableError(f"request with an id that is no number from 0 to 2^63 - 1: {reason}")
    if isinstance(op, str) and op not in _OPS:
        return request_id, Error(
            f'"{op[:40]}" is not in this version',
            ErrorCode.NOT_IN_THIS_VERSION,
            f"This agent knows: {', '.join(sorted(map(str, _OPS)))}",
        )
    return request_id, Error(f"Bad request: {reason}", ErrorCode.BAD_REQUEST)
