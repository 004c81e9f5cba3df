"""Messages for the transport's tests: one of each type, and hypothesis strategies."""

from __future__ import annotations

from hypothesis import strategies as st

from raft_agent.consensus import batch as batches
from raft_agent.consensus import types

_CONFIGURATION = batches.encode(batches.BatchKind.CONFIGURATION, 1, 1, 1, b"who belongs to it")

ONE_OF_EACH: tuple[types.Message, ...] = (
    types.PreVote(term=4, request_id=11, last_index=7, last_term=3),
    types.PreVoteReply(term=4, request_id=11, granted=True),
    types.RequestVote(term=4, request_id=12, last_index=7, last_term=3, transfer=True),
    types.VoteReply(term=4, request_id=12, granted=False),
    types.AppendEntries(
        term=4,
        request_id=13,
        session=0xFEDCBA9876543210,
        prev_index=7,
        prev_term=3,
        commit_index=6,
        batches=(
            batches.encode(batches.BatchKind.NOOP, 8, 4, 1, b""),
            batches.encode(batches.BatchKind.COMMANDS, 9, 4, 3, b"three commands"),
        ),
    ),
    types.AppendReply(
        term=4,
        request_id=13,
        session=0xFEDCBA9876543210,
        success=True,
        match_index=11,
        hint_index=2,
        hint_term=1,
    ),
    types.Heartbeat(term=4, request_id=14, session=5, commit_index=11, as_of_us=13, as_of_index=10),
    types.HeartbeatReply(term=4, request_id=14, session=5, withheld_us=150_000, stamp_us=77),
    types.TimeoutNow(term=4, request_id=15),
    types.ReadIndex(term=4, request_id=16, lease=True),
    types.ReadIndexReply(term=4, request_id=16, index=11),
    types.BootstrapAsk(
        term=0, request_id=1, name="node-01", address="[::1]:5555", names=("node-01", "node-02")
    ),
    types.BootstrapAnswer(
        term=0,
        request_id=1,
        name="node-02",
        address="10.0.0.2:5555",
        names=("node-01", "node-02"),
        fresh=True,
        token=0xFFFFFFFFFFFFFFFF,
        cluster_id="",
    ),
    types.BootstrapInstall(term=1, request_id=2, token=77, batch=_CONFIGURATION, joins=True),
    types.SnapshotChunk(
        term=4,
        request_id=17,
        session=5,
        token=77,
        index=9,
        index_term=3,
        size_bytes=4_000,
        checksum=0xFEDCBA98,
        offset=3_000,
        data=b"a piece of the file",
    ),
    types.SnapshotReply(term=4, request_id=17, session=5, index=9, offset=4_000, done=True),
    types.Announce(term=4, request_id=18, address="[::1]:5555"),
    types.Removed(term=4, request_id=18),
    types.AuditReport(term=4, request_id=19, index=7, digest=1 << 32),
)

u64 = st.integers(0, 2**64 - 1)
names = st.text(max_size=20)
name_lists = st.lists(names, max_size=4).map(tuple)


@st.composite
def consecutive_batches(draw: st.DrawFn, first_index: int) -> tuple[batches.Batch, ...]:
    """Up to four batches from `first_index` on."""
    found = []
    for payload in draw(st.lists(st.binary(max_size=200), max_size=4)):
        kind = draw(st.sampled_from(batches.BatchKind))
        count = draw(st.integers(1, 1000))
        term = draw(st.integers(1, 2**64 - 1))
        found.append(batches.encode(kind, first_index, term, count, payload))
        first_index += count
    return tuple(found)


@st.composite
def append_entries(draw: st.DrawFn) -> types.AppendEntries:
    prev_index = draw(st.integers(0, 2**63))
    return types.AppendEntries(
        draw(u64),
        draw(u64),
        draw(u64),
        prev_index,
        draw(u64),
        draw(u64),
        draw(consecutive_batches(prev_index + 1)),
    )


@st.composite
def installs(draw: st.DrawFn) -> types.BootstrapInstall:
    batch = batches.encode(
        batches.BatchKind.CONFIGURATION, 1, 1, draw(st.integers(1, 5)), draw(st.binary())
    )
    return types.BootstrapInstall(draw(u64), draw(u64), draw(u64), batch, draw(st.booleans()))


@st.composite
def chunks(draw: st.DrawFn) -> types.SnapshotChunk:
    data = draw(st.binary(max_size=300))
    offset = draw(st.integers(0, 2**64 - 1 - len(data)))
    return types.SnapshotChunk(
        term=draw(u64),
        request_id=draw(u64),
        session=draw(u64),
        token=draw(u64),
        index=draw(u64),
        index_term=draw(u64),
        size_bytes=draw(st.integers(offset + len(data), 2**64 - 1)),
        checksum=draw(st.integers(0, 2**32 - 1)),
        offset=offset,
        data=data,
    )


any_message: st.SearchStrategy[types.Message] = st.one_of(
    st.builds(types.PreVote, u64, u64, u64, u64),
    st.builds(types.PreVoteReply, u64, u64, st.booleans()),
    st.builds(types.RequestVote, u64, u64, u64, u64, st.booleans()),
    st.builds(types.VoteReply, u64, u64, st.booleans()),
    append_entries(),
    st.builds(types.AppendReply, u64, u64, u64, st.booleans(), u64, u64, u64),
    st.builds(types.Heartbeat, u64, u64, u64, u64, u64),
    st.builds(types.HeartbeatReply, u64, u64, u64, u64),
    st.builds(types.TimeoutNow, u64, u64),
    st.builds(types.ReadIndex, u64, u64, st.booleans()),
    st.builds(types.ReadIndexReply, u64, u64, u64),
    st.builds(types.BootstrapAsk, u64, u64, names, names, name_lists),
    st.builds(types.BootstrapAnswer, u64, u64, names, names, name_lists, st.booleans(), u64, names),
    installs(),
    chunks(),
    st.builds(types.SnapshotReply, u64, u64, u64, u64, u64, st.booleans()),
    st.builds(types.Announce, u64, u64, names),
    st.builds(types.Removed, u64, u64),
    st.builds(types.AuditReport, u64, u64, u64, u64),
)
