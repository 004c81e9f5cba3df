"""Who is on the other side: the first frame of each direction, and the checks on it.

The dialler sends HELLO, the listener answers HELLO_REPLY; both bodies are the MessagePack array
[oldest, newest, cluster_id, member_id, name, address, refusal, purpose, in_force, promised,
program, generation, fate, standing]. The header's `sender` repeats member_id, its other fields are
0. A refusal that is not empty says why the listener closes the connection. The purpose is the
dialler's. Fate and standing are the listener's: what became of a member of a former generation, and
what it answers to a probe. Nothing else is sent before the reply has come.

Two members go together when both know the cluster version that is in force, or when there is none
yet, one that both know. Nothing is agreed on for a connection alone: what may be said is what the
version in force has, and that is raised only when all members know it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Annotated

import msgspec

from raft_agent import __version__, wire
from raft_agent.consensus.generations import Kinship, is_awaited, kinship
from raft_agent.consensus.types import Generation, Standing
from raft_agent.versions import Versions
from raft_agent.wire import FrameError, FrameType

MAX_HELLO_BYTES = 16 << 10

_CLUSTER_ID = re.compile(r"(?:[0-9a-f]{32})?")


class Purpose(enum.StrEnum):
    """What a connection is dialled for. MAIN: the calls of one member to another. BULK: pieces of
    snapshots. PROBE: to ask who is there; it is answered whoever asks, and closed.
    """

    MAIN = ""
    BULK = "bulk"
    PROBE = "probe"


class Fate(enum.StrEnum):
    """What a later generation holds for a member of a former one: nothing (NONE: it is of no former
    one), to come in again with an empty log (AWAITED), or to be no member any more (REMOVED).
    """

    NONE = ""
    AWAITED = "awaited"
    REMOVED = "removed"


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """`oldest`, `newest`: the cluster versions that the sender knows. `cluster_id`: 32 hexadecimal
    digits, or empty of a fresh node. `address`: where the sender can be dialled. `purpose`: one of
    Purpose. `in_force`: the cluster version as far as the sender has applied the log, 0 of a fresh
    node; `promised`: the one that it has promised to know. `program`: which raft-agent it is.
    `generation`: the sender's, 0 also of a fresh node. `fate`: one of Fate. `standing`: in the
    answer to a probe alone. Fields that a later version adds are ignored.
    """

    oldest: Annotated[int, msgspec.Meta(ge=1)]
    newest: Annotated[int, msgspec.Meta(ge=1, lt=1 << 32)]
    cluster_id: str
    member_id: Annotated[int, msgspec.Meta(gt=0)]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    address: Annotated[str, msgspec.Meta(max_length=512)]
    refusal: Annotated[str, msgspec.Meta(max_length=2048)] = ""
    purpose: Annotated[str, msgspec.Meta(max_length=32)] = ""
    in_force: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 0
    promised: Annotated[int, msgspec.Meta(ge=1, lt=1 << 32)] = 1
    program: Annotated[str, msgspec.Meta(max_length=64)] = ""
    generation: Annotated[int, msgspec.Meta(ge=0)] = 0
    fate: Annotated[str, msgspec.Meta(max_length=32)] = ""
    standing: Standing | None = None

    @property
    def versions(self) -> Versions:
        return Versions(self.oldest, self.newest)


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Hello)


class Refused(Exception):  # noqa: N818  (a decision, not a fault of this program)
    """The other side is not welcome; `reason` is a short stable word for counters: "version",
    "purpose", "cluster", "self", "identity", "name", "duplicate", "superseded", "generation",
    "refused". `short`: the same for a reader who knows which peer is meant. `fate`: what to tell a
    member of a former generation, or what such a member was told.
    """

    def __init__(self, reason: str, text: str, short: str = "", fate: str = Fate.NONE) -> None:
        super().__init__(text)
        self.reason = reason
        self.short = short or text
        self.fate = fate


class Superseded(Refused):
    """The member that was dialled belongs to a `generation` that goes back to this node's."""

    def __init__(self, hello: Hello, text: str) -> None:
        super().__init__("generation", text, fate=hello.fate)
        self.member_id = hello.member_id
        self.generation = hello.generation


class Outdated(Exception):  # noqa: N818  (a decision, not a fault of this program)
    """This program is too old for its own cluster; the text says what to install."""


def encode_hello(frame_type: FrameType, hello: Hello) -> bytes:
    """HELLO or HELLO_REPLY as one frame."""
    return wire.encode(frame_type, _ENCODER.encode(hello), sender=hello.member_id)


def decode_hello(frame: wire.Frame) -> Hello:
    """The hello in a frame. Raises FrameError("body") or ("sender")."""
    try:
        hello = _DECODER.decode(frame.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError("body", f"malformed handshake: {error}") from None
    if not _CLUSTER_ID.fullmatch(hello.cluster_id):
        raise FrameError("body", f"malformed handshake: cluster id {hello.cluster_id!r}")
    if hello.member_id != frame.sender:
        raise FrameError(
            "sender",
            f"handshake of member {hello.member_id:016x} in a frame from {frame.sender:016x}",
        )
    return hello


def shown(text: str) -> str:
    """The other side's words, fit for a line of our log."""
    return "".join(c if c.isprintable() else "?" for c in text)


def read_reply(frame: wire.Frame, own: Hello, member_id: int, name: str) -> Hello:
    """The listener's answer to our hello, checked; `member_id` and `name` as in `check_expected`.

    Raises FrameError and Refused, and Outdated when it is this node that has to go.
    """
    hello = decode_hello(frame)
    if member_id == hello.member_id and own.cluster_id == hello.cluster_id != "":
        check_up_to_date(own, hello)
    if hello.refusal:
        text = f"it refuses: {shown(hello.refusal)}"
        if hello.fate and (hello.member_id, hello.cluster_id) == (member_id, own.cluster_id):
            raise Superseded(hello, text)
        raise Refused("refused", text)
    check_hello(own, hello)
    if own.cluster_id and hello.cluster_id and own.generation != hello.generation:
        raise Refused("generation", _of_another_generation(own, hello))
    check_expected(member_id, name, hello)
    return hello


def check_hello(own: Hello, other: Hello) -> None:
    """What both sides ask of each other. Raises Refused."""
    check_common_version(own, other)
    if other.member_id == own.member_id:
        raise Refused("self", _own_id_elsewhere(own, other))
    if own.cluster_id and other.cluster_id and own.cluster_id != other.cluster_id:
        raise Refused(
            "cluster",
            f"{other.name!r} belongs to cluster {other.cluster_id}, "
            f"{own.name!r} to cluster {own.cluster_id}",
        )
    in_force = max(own.in_force, other.in_force)
    for hello in (own, other):
        if in_force and in_force not in hello.versions:
            raise Refused(
                "version",
                f"{_describe(hello)}, and the cluster's version is {in_force}: install a "
                f"raft-agent for {hello.name!r} that knows it",
            )


def check_common_version(own: Hello, other: Hello) -> None:
    """Whether the two can talk at all. Raises Refused."""
    if max(own.oldest, other.oldest) > min(own.newest, other.newest):
        raise Refused(
            "version",
            f"{_describe(other)}, and {_describe(own)}, so they can't talk: install the same "
            "raft-agent on both",
        )


def check_generation(generation: Generation, own: Hello, other: Hello) -> None:
    """Whether whoever dials is of this node's generation, or of none yet. Raises Refused."""
    if not own.cluster_id or not other.cluster_id:
        return
    kin = kinship(generation, other.generation)
    if kin is Kinship.STRANGE:
        raise Refused("generation", _of_another_generation(own, other))
    if kin is Kinship.FORMER and is_awaited(generation, other.member_id):
        text = (
            f"the cluster was recovered at another member: {other.name!r} has to put its data "
            "aside and to come in again, which it does by itself once it knows no leader"
        )
        raise Refused("generation", text, fate=Fate.AWAITED)
    if kin is Kinship.FORMER:
        text = (
            f"the cluster was recovered without {other.name!r}: to bring it back stop it, empty "
            f"its data directory, start it, and at a member: raftctl join {other.name} "
            f"{other.address}"
        )
        raise Refused("generation", text, fate=Fate.REMOVED)


def _of_another_generation(own: Hello, other: Hello) -> str:
    return (
        f"{other.name!r} is of generation {other.generation:016x} of the cluster, {own.name!r} of "
        f"{own.generation:016x}, which does not go back to it. If both were recovered keep one, "
        "and empty the data directories of the other's members to join them"
    )


def check_up_to_date(own: Hello, other: Hello) -> None:
    """Whether this program still knows what a member of its cluster says is in force. Raises
    Outdated."""
    if other.in_force > own.newest:
        raise Outdated(
            f"{other.name!r} says that the cluster's version is {other.in_force}, and this "
            f"raft-agent {__version__} knows {own.versions}: it can't take part any more. Install "
            f"one that knows version {other.in_force}: {other.name!r} runs {shown(other.program)}"
        )


def _describe(hello: Hello) -> str:
    program = f"raft-agent {shown(hello.program)}" if hello.program else "a raft-agent"
    return f"{hello.name!r} runs {program}, which knows {hello.versions}"


def _own_id_elsewhere(own: Hello, other: Hello) -> str:
    if other.name != own.name:
        return said_by_another(own.member_id, own.name, other.name)
    if other.address != own.address:
        return (
            f"another {other.name!r} at {other.address} has this node's id: one data directory is "
            "a copy of the other, so end that agent and remove its copy"
        )
    return f"the address leads back to {own.name!r} itself"


def said_by_another(member_id: int, name: str, other_name: str) -> str:
    """An id of the configuration comes under a name that isn't its own."""
    return f"id {member_id:016x} is {name}, but {other_name!r} says it"


def check_known(names: Mapping[int, str], own: Hello, other: Hello) -> None:
    """What the configuration knows of whoever dials. `names`: the members' names by id, empty
    while ids are not known. A member's name under a new id is welcome: its disk was lost, and it
    has to hear that its cluster exists.

    Raises Refused.
    """
    name = names.get(other.member_id, other.name)
    if name != other.name:
        raise Refused("identity", said_by_another(other.member_id, name, other.name))
    if names and other.name == own.name:
        raise Refused(
            "name",
            f"{other.name!r} is this node's own name, but {other.member_id:016x} says it: "
            "correct server.node_id there",
        )


def check_expected(member_id: int, name: str, other: Hello) -> None:
    """What a dialler expects of the one it meant: id and name, or the name while it knows no id
    (0), or nothing while it knows no name ("") either.

    Raises Refused.
    """
    if not name:
        return
    if member_id and other.member_id != member_id:
        raise Refused(
            "identity",
            f"member {other.member_id:016x} ({other.name!r}) answers where "
            f"{member_id:016x} ({name!r}) should",
            "another member answers there (its data directory is new?)"
            if other.name == name
            else f"{other.name} answers there",
        )
    if other.name != name:
        if member_id:
            raise Refused("identity", said_by_another(member_id, name, other.name))
        raise Refused(
            "name", f"{other.name!r} answers where {name!r} should", f"{other.name} answers there"
        )
