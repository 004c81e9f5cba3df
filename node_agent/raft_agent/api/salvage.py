"""A frame in which not every request could be read: which ones can be served or answered still."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from raft_agent.api import protocol
from raft_agent.api.protocol import Error, ErrorCode
from raft_agent.api.terms import UNREADABLE

_RAW_LIST = msgspec.msgpack.Decoder(list[msgspec.Raw])
_RAW_LIST_JSON = msgspec.json.Decoder(list[msgspec.Raw])
_REQUEST_JSON = msgspec.json.Decoder(protocol.Request)


class _Start(msgspec.Struct, array_like=True):
    """What every request begins with. The rest is passed over, and nothing is made of it."""

    op: msgspec.Raw
    id: msgspec.Raw


_START = msgspec.msgpack.Decoder(_Start)
_START_JSON = msgspec.json.Decoder(_Start)

_ARRAY_16, _ARRAY_32 = 0xDC, 0xDD
# An op is a short word and an id a number: what is longer is neither, and is not made into objects.
_LONGEST_START_BYTES = 4096

# Objects are many times as large as the bytes that they are read from: of so much JSON the commas
# outside of texts are counted first. Requests that can be served have some dozens each.
_LARGE_JSON_BYTES = 1 << 20
_MAX_COMMAS = 1 << 20
_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)

_OPS = frozenset(kind.__struct_config__.tag for kind in protocol.RESULT_TYPES)


class UnreadableError(ValueError):
    """A frame whose requests can't be answered, because not even their ids can be told."""


def read_requests(body: bytes, is_json: bool) -> Sequence[protocol.Request | tuple[int, Error]]:
    """The requests in a frame's body in their order, and (id, error) in place of each that can't be
    served. Raises UnreadableError when they can't be answered one by one."""
    if is_json:
        _check_count(_json_items(body))
    elif body and body[0] >= _ARRAY_16:  # most frames have a shorter one
        _check_count(_array_length(body))
    decoder = protocol.REQUESTS_JSON_DECODER if is_json else protocol.REQUESTS_DECODER
    requests: Sequence[protocol.Request | tuple[int, Error]]
    try:
        requests = decoder.decode(body)
    except UNREADABLE:
        requests = decode_one_by_one(body, is_json)
    _check_count(len(requests))
    return requests


def _check_count(count: int) -> None:
    if count > protocol.MAX_REQUESTS_PER_FRAME:
        raise UnreadableError(
            f"frame of {count} requests; {protocol.MAX_REQUESTS_PER_FRAME} is the limit"
        )


def _array_length(body: bytes) -> int:
    """How many elements a MessagePack array says that it has; 0 for one of a few, and for none."""
    head = body[0] if body else 0
    if head == _ARRAY_16:
        return int.from_bytes(body[1:3], "big")
    return int.from_bytes(body[1:5], "big") if head == _ARRAY_32 else 0


def _json_items(body: bytes) -> int:
    """0, unless there is more in so much JSON than any requests could hold."""
    if len(body) < _LARGE_JSON_BYTES or body.count(b",") <= _MAX_COMMAS:
        return 0
    commas = _TEXTS.sub(b"", body).count(b",")
    return commas if commas > _MAX_COMMAS else 0


def decode_one_by_one(body: bytes, is_json: bool) -> list[protocol.Request | tuple[int, Error]]:
    """The requests in their order, and (id, error) in place of each that can't be served.

    Raises UnreadableError when the body is no array, or there is a request without an id.
    """
    raw_list = _RAW_LIST_JSON if is_json else _RAW_LIST
    try:
        items = raw_list.decode(body)
    except UNREADABLE as error:
        raise UnreadableError(f"frame body is no array of requests: {error}") from error
    return [_decode(bytes(item), is_json) for item in items]


def decode_request(body: bytes) -> protocol.Request | tuple[int, Error]:
    """One request in MessagePack. Raises UnreadableError when it has no id."""
    return _decode(body, is_json=False)


def _decode(item: bytes, is_json: bool) -> protocol.Request | tuple[int, Error]:
    decoder = _REQUEST_JSON if is_json else protocol.REQUEST_DECODER
    try:
        request: protocol.Request = decoder.decode(item)
    except UNREADABLE as error:
        return _explain(item, is_json, str(error))
    return request


def _explain(item: bytes, is_json: bool, reason: str) -> tuple[int, Error]:
    try:
        start = (_START_JSON if is_json else _START).decode(item)
    except msgspec.ValidationError:
        raise UnreadableError("request is no array of an op, an id and fields") from None
    except UNREADABLE as error:
        raise UnreadableError(f"request can't be read: {error}") from error
    op, request_id = (_short(raw, is_json) for raw in (start.op, start.id))
    if type(request_id) is not int or not 0 <= request_id < 1 << 63:
        raise UnreadableError(f"request with an id that is no number from 0 to 2^63 - 1: {reason}")
    if isinstance(op, str) and op not in _OPS:
        return request_id, Error(
            f'"{op[:40]}" is not in this version',
            ErrorCode.NOT_IN_THIS_VERSION,
            f"This agent knows: {', '.join(sorted(map(str, _OPS)))}",
        )
    return request_id, Error(f"Bad request: {reason}", ErrorCode.BAD_REQUEST)


def _short(raw: msgspec.Raw, is_json: bool) -> object:
    """What these bytes stand for; None when they are too long for an op or an id."""
    if len(memoryview(raw)) > _LONGEST_START_BYTES:
        return None
    decode = msgspec.json.decode if is_json else msgspec.msgpack.decode
    try:
        return decode(raw)
    except UNREADABLE:
        return None
