"""What clients say to an agent and what it answers; the same over every transport.

One CLIENT_REQUEST frame holds an array of requests, one CLIENT_REPLY frame an array of replies,
in any order; a reply repeats the id that the client gave its request. Streams (watches, events)
are replies too: a first one that says the stream stands, then items in CLIENT_PUSH frames under
the same id. Bodies are MessagePack, or JSON (values then base64) when the frame's JSON flag is
set; the reply uses what the request used. `docs/protocol.md` is the description for authors of
clients.
"""

from __future__ import annotations

import enum
from typing import Annotated, TypeAlias

import msgspec

MAX_KEY_BYTES = 4096
MAX_VALUE_BYTES = 8 << 20
MAX_TEXT_BYTES = 1 << 20
MAX_REQUESTS_PER_FRAME = 16_384
MAX_IN_FLIGHT = 65_536
MAX_STREAMS = 1024

# Ids fit a signed 64-bit integer, which every client's language has.
RequestId: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Limit: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Revision: TypeAlias = Annotated[int, msgspec.Meta(ge=-1, le=(1 << 63) - 1)]
LogIndex: TypeAlias = Annotated[int, msgspec.Meta(ge=-1, le=(1 << 63) - 1)]


class ErrorCode(enum.StrEnum):
    """Stable words for what went wrong. `UNKNOWN_OUTCOME`: the write may still happen; every other
    code of a write means that it did not and will not.
    """

    NOT_LEADER = "not_leader"
    NO_LEADER = "no_leader"
    NO_QUORUM = "no_quorum"
    KEY_NOT_FOUND = "key_not_found"
    CONFLICT = "conflict"
    BAD_REQUEST = "bad_request"
    TOO_LARGE = "too_large"
    BUSY = "busy"
    UNKNOWN_OUTCOME = "unknown_outcome"
    TIMED_OUT = "timed_out"
    NO_SUCH_MEMBER = "no_such_member"
    NOT_IN_CLUSTER = "not_in_cluster"
    STORAGE_FAILED = "storage_failed"
    NOT_IN_THIS_VERSION = "not_in_this_version"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL = "internal"


class Consistency(enum.StrEnum):
    LINEARIZABLE = "linearizable"
    LEASE = "lease"
    STALE = "stale"


class _Request(msgspec.Struct, frozen=True, array_like=True, tag_field="op", gc=False):
    """`id` is the client's number for this request, unique among those it has in flight."""

    id: RequestId


# On the wire a request is an array: [op, id, field, field, …]; trailing defaults may be left out.


class Status(_Request, frozen=True, tag="status"):
    pass


class Send(_Request, frozen=True, tag="send"):
    """Append a text to the message log. `forward`: a follower passes it on to the leader.
    `node` is set by agents when they forward and empty from clients.
    """

    text: str
    forward: bool = False
    node: str = ""


class Messages(_Request, frozen=True, tag="messages"):
    """The newest `limit` messages, newest first, from this node's applied state."""

    limit: Limit = 10


class WatchMessages(_Request, frozen=True, tag="watch_messages"):
    """Messages as they are applied here; first those after log index `after_index` (-1: none of the
    past)."""

    after_index: LogIndex = -1


class Put(_Request, frozen=True, tag="put"):
    """`if_revision`: only when the key's mod revision is this one (-1: no condition; 0: absent)."""

    key: str
    value: bytes
    if_revision: Revision = -1
    forward: bool = False


class Delete(_Request, frozen=True, tag="delete"):
    key: str
    if_revision: Revision = -1
    forward: bool = False


class Get(_Request, frozen=True, tag="get"):
    key: str
    consistency: Consistency = Consistency.LINEARIZABLE


class List(_Request, frozen=True, tag="list"):
    """Keys that start with `prefix`, in byte order, those after the key `after` only."""

    prefix: str = ""
    limit: Limit = 1000
    after: str = ""
    consistency: Consistency = Consistency.LINEARIZABLE


class WatchKeys(_Request, frozen=True, tag="watch_keys"):
    """Changes of one key, or with `prefix` of all keys below it, as they are applied here."""

    key: str
    prefix: bool = False


class MemberList(_Request, frozen=True, tag="member_list"):
    pass


class LeaderTransfer(_Request, frozen=True, tag="leader_transfer"):
    """`target`: a member's name; empty: the voter that is furthest. `forward` as for writes."""

    target: str = ""
    forward: bool = False


class Health(_Request, frozen=True, tag="health"):
    """Asked of a follower, the leader answers when there is one."""

    forward: bool = True


class Events(_Request, frozen=True, tag="events"):
    """The newest `limit` events, oldest first. With `follow` it is a stream: those and all new ones
    are pushed."""

    limit: Limit = 100
    follow: bool = False


class Cancel(_Request, frozen=True, tag="cancel"):
    """End the stream with the id `stream`; nothing of it comes after the reply. The result is null,
    also when the stream had ended already."""

    stream: RequestId


Request = (
    Status
    | Send
    | Messages
    | WatchMessages
    | Put
    | Delete
    | Get
    | List
    | WatchKeys
    | MemberList
    | LeaderTransfer
    | Health
    | Events
    | Cancel
)


class Error(msgspec.Struct, frozen=True, omit_defaults=True):
    """`error` is the sentence for people, `hint` what to do next, `leader` a name when known."""

    error: str
    code: ErrorCode
    hint: str = ""
    leader: str = ""


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """[id, error or null, result or null]; the result's shape belongs to the request."""

    id: int
    error: Error | None
    result: msgspec.Raw = msgspec.Raw(b"\xc0")


# --- Results (maps on the wire) -------------------------------------------------------------------


class WriteResult(msgspec.Struct, frozen=True, gc=False):
    """Send, Put, Delete. `revision` is the store's after the write; `deleted` counts keys."""

    index: int
    term: int
    revision: int
    deleted: int = 0


class KeyValue(msgspec.Struct, frozen=True, gc=False):
    """Get; List and WatchKeys hold many. `revision` is the key's mod revision, `version` counts its
    puts since it was created."""

    key: str
    value: bytes
    revision: int
    create_revision: int
    version: int


class ListResult(msgspec.Struct, frozen=True):
    """`more`: keys were left out; go on with after = the last key. `revision` is the store's."""

    keys: list[KeyValue]
    more: bool
    revision: int


class MessageItem(msgspec.Struct, frozen=True, gc=False):
    """`time` is RFC 3339 in UTC with milliseconds, set by the leader."""

    index: int
    time: str
    node: str
    text: str


class MessagesResult(msgspec.Struct, frozen=True):
    last_applied: int
    messages: list[MessageItem]


class KeyEvent(msgspec.Struct, frozen=True, gc=False):
    """`type` is "put" or "delete" (then without a value)."""

    type: str
    key: str
    value: bytes
    revision: int
    index: int


class MemberInfo(msgspec.Struct, frozen=True):
    """`role`: "voter" or "learner"; `id` is 16 hexadecimal digits."""

    name: str
    id: str
    address: str
    role: str


class MemberListResult(msgspec.Struct, frozen=True):
    cluster_id: str
    leader: str | None
    members: list[MemberInfo]


class EbpfStatus(msgspec.Struct, frozen=True):
    state: str = "off"
    reason: str = ""
    interfaces: list[str] = []


class ProgressInfo(msgspec.Struct, frozen=True):
    """`lag` in entries; `last_contact_ms` is null before the first contact."""

    match_index: int
    lag: int
    last_contact_ms: int | None


class StatusResult(msgspec.Struct, frozen=True, omit_defaults=False):
    """`role`: leader, follower, candidate, learner; a node without a cluster says follower and an
    empty cluster_id, and `note` says what it waits for."""

    node_id: str
    role: str
    term: int
    commit_index: int
    last_applied: int
    leader: str | None
    peers: list[str]
    voters: list[str]
    learners: list[str]
    members: list[MemberInfo]
    cluster_id: str
    version: str
    ebpf: EbpfStatus
    progress: dict[str, ProgressInfo] | None = None
    note: str = ""


class HealthMember(msgspec.Struct, frozen=True):
    """`state`: "healthy", "lagging", "unreachable"; `detail` is a sentence for people."""

    name: str
    id: str
    address: str
    role: str
    state: str
    last_contact_ms: int | None
    match_index: int | None
    lag: int | None
    detail: str = ""


class HealthResult(msgspec.Struct, frozen=True):
    quorum: bool
    leader: str | None
    term: int
    members: list[HealthMember]


class EventItem(msgspec.Struct, frozen=True):
    """Something that happened at this node. `kind` like "leader_elected"; facts by name."""

    time: str
    kind: str
    term: int
    text: str
    facts: dict[str, int | str]


class EventsResult(msgspec.Struct, frozen=True):
    events: list[EventItem]


class TransferResult(msgspec.Struct, frozen=True):
    leader: str


class StreamStarted(msgspec.Struct, frozen=True):
    """The first reply of a stream; `index`: from here on nothing is left out."""

    index: int


# What the result of each request decodes to, and for a stream what its pushed items do.
RESULT_TYPES: dict[type[Request], type | None] = {
    Status: StatusResult,
    Send: WriteResult,
    Messages: MessagesResult,
    WatchMessages: StreamStarted,
    Put: WriteResult,
    Delete: WriteResult,
    Get: KeyValue,
    List: ListResult,
    WatchKeys: StreamStarted,
    MemberList: MemberListResult,
    LeaderTransfer: TransferResult,
    Health: HealthResult,
    Events: EventsResult,
    Cancel: None,
}
ITEM_TYPES: dict[type[Request], type] = {
    WatchMessages: MessageItem,
    WatchKeys: KeyEvent,
    Events: EventItem,
}

# What changes something: asking again after a lost answer could do it twice.
WRITES = (Send, Put, Delete, LeaderTransfer)

ENCODER = msgspec.msgpack.Encoder()
JSON_ENCODER = msgspec.json.Encoder()
REQUEST_DECODER = msgspec.msgpack.Decoder(Request)
REQUESTS_DECODER = msgspec.msgpack.Decoder(list[Request])
REQUESTS_JSON_DECODER = msgspec.json.Decoder(list[Request])
REPLIES_DECODER = msgspec.msgpack.Decoder(list[Reply])
