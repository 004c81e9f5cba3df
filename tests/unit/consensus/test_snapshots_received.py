"""What a follower does with a snapshot: pieces, installing, and when it says that it is done."""

from __future__ import annotations

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import (
    AppendEntries,
    AppendLog,
    AppendReply,
    Apply,
    CompactLog,
    ConfigurationChanged,
    Effect,
    Heartbeat,
    InstallSnapshot,
    PreVote,
    RequestVote,
    Role,
    SnapshotChunk,
    SnapshotReply,
    SnapshotTaken,
    SnapshotWritten,
    TimeoutNow,
    Vote,
    WriteSnapshot,
)
from tests.unit.consensus.server import (
    MAX_TIMEOUT_US,
    Server,
    configuration_of,
    entry,
    log_of,
    notes,
    of,
    sends,
    terms_of,
)
from tests.unit.consensus.snapshot_files import SnapshotFile, snapshot_of

LEADER = 1
PIECE = 64


def snapshot(*terms: int) -> SnapshotFile:
    """Of a log whose entries are of these terms."""
    return snapshot_of(log_of(*terms), 1, configuration_of(3))


FILE = snapshot(1, 2, 2, 2, 2, 2, 2, 2)


class Sending:
    """Speaks as the leader of `term` that sends this file."""

    def __init__(
        self, server: Server, file: SnapshotFile = FILE, *, term: int = 2, sender: int = LEADER
    ) -> None:
        self.server = server
        self.file = file
        self.term = term
        self.sender = sender
        self.request_id = 0

    def offer(self) -> list[Effect]:
        return self.piece(0, b"")

    def piece(self, offset: int, data: bytes | None = None) -> list[Effect]:
        self.request_id += 1
        meta = self.file.meta
        if data is None:
            data = self.file.data[offset : offset + PIECE]
        chunk = SnapshotChunk(
            self.term,
            self.request_id,
            7,
            0,
            meta.index,
            meta.term,
            meta.size_bytes,
            meta.checksum,
            offset,
            data,
        )
        return self.server.receive(self.sender, chunk)

    def pieces(self, upto: int | None = None) -> list[Effect]:
        """All of them, or those before `upto`."""
        effects: list[Effect] = []
        for offset in range(0, upto or len(self.file.data), PIECE):
            effects += self.piece(offset)
        return effects

    def reply(self, offset: int, *, done: bool = False) -> SnapshotReply:
        """The answer to what was sent last."""
        return SnapshotReply(self.term, self.request_id, 7, self.file.meta.index, offset, done)


SIZE = FILE.meta.size_bytes


def follower(*terms: int) -> Server:
    return Server(2, log=log_of(*terms or (1,)), vote=Vote(2))


def replies(effects: list[Effect]) -> list[SnapshotReply]:
    return sends(SnapshotReply, effects)


# --- piece by piece


def test_an_offer_is_answered_by_how_much_is_there() -> None:
    leader = Sending(follower())
    assert replies(leader.offer()) == [leader.reply(0)]
    effects = leader.piece(0)
    (write,) = of(WriteSnapshot, effects)
    meta = FILE.meta
    assert write == WriteSnapshot(
        meta.index, meta.term, meta.size_bytes, meta.checksum, 0, FILE.data[:PIECE]
    )
    assert replies(effects) == [leader.reply(PIECE)]
    assert replies(leader.offer()) == [leader.reply(PIECE)]
    assert notes(leader.server.history).count("snapshot_arrives") == 1


def test_a_piece_is_answered_once_it_is_written() -> None:
    leader = Sending(follower())
    leader.server.installs = False
    assert not replies(leader.piece(0))
    assert not replies(leader.offer()), "the answer follows"
    effects = leader.server.do_snapshot_work()
    assert replies(effects) == [leader.reply(PIECE)]


def test_a_piece_that_does_not_follow_is_not_written() -> None:
    leader = Sending(follower())
    leader.piece(0)
    for offset in (0, PIECE - 1, PIECE + 1):
        effects = leader.piece(offset)
        assert not of(WriteSnapshot, effects)
        assert replies(effects) == [leader.reply(PIECE)]


def test_a_piece_that_is_longer_than_the_file_is_not_written() -> None:
    leader = Sending(follower())
    assert not of(WriteSnapshot, leader.piece(0, FILE.data + b"x"))
    assert of(WriteSnapshot, leader.piece(0, FILE.data))


def test_a_transmission_goes_on_under_a_new_leader_with_the_same_file() -> None:
    server = follower()
    Sending(server).pieces(2 * PIECE)
    new = Sending(server, term=3, sender=3)
    assert replies(new.offer()) == [new.reply(2 * PIECE)]


def test_another_file_begins_from_the_start() -> None:
    server = follower()
    Sending(server).pieces(2 * PIECE)
    other = Sending(server, snapshot(1, 2, 2, 2, 2, 2, 2, 2, 2))
    assert replies(other.offer()) == [other.reply(0)]
    assert of(WriteSnapshot, other.piece(0))[0].offset == 0


def test_a_file_that_differs_only_in_its_bytes_is_another_one() -> None:
    server = follower()
    Sending(server).pieces(2 * PIECE)
    batches = log_of(1, 2, 2, 2, 2, 2, 2)
    batches.append(entry(8, 2, payload=b"8!2"))
    same_size = snapshot_of(batches, 1, configuration_of(3))
    assert (same_size.meta.index, same_size.meta.size_bytes) == (FILE.meta.index, SIZE)
    other = Sending(server, same_size)
    assert replies(other.offer()) == [other.reply(0)]


def test_nothing_is_said_to_a_leader_that_leads_no_more() -> None:
    leader = Sending(follower())
    server = leader.server
    server.installs = False
    leader.piece(0)
    server.receive(3, Heartbeat(3, 1, 1, 0))
    assert not replies(server.do_snapshot_work())


# --- installing


def test_a_snapshot_takes_the_place_of_log_state_and_configuration() -> None:
    leader = Sending(follower(1, 1))
    server = leader.server
    effects = leader.pieces()
    meta = FILE.meta
    assert of(InstallSnapshot, effects) == [
        InstallSnapshot(meta.index, meta.term, meta.size_bytes, meta.checksum)
    ]
    node = server.node
    assert (node.log.base_index, node.log.base_term, node.log.last_index) == (8, 2, 8)
    assert node.commit_index == node.applied_index == 8
    assert node.state.snapshot == meta
    assert of(ConfigurationChanged, effects) == [ConfigurationChanged(configuration_of(3), 1)]
    assert replies(effects)[-1] == leader.reply(SIZE, done=True)
    server.receive(LEADER, AppendEntries(2, 9, 7, 8, 2, 9, (entry(9, 2),)))
    assert terms_of_tail(server) == [2]
    assert server.applied[-1] == entry(9, 2)


def terms_of_tail(server: Server) -> list[int]:
    log = server.node.log
    return [log.term_at(index) for index in range(log.base_index + 1, log.last_index + 1)]


def installing(*terms: int) -> Sending:
    """All pieces are written, and the host is about to install."""
    leader = Sending(follower(*terms))
    server = leader.server
    server.installs = False
    for offset in range(0, SIZE, PIECE):
        leader.piece(offset)
        server.do_snapshot_work()
    assert server.node.state.installing
    assert isinstance(server.snapshot_work[0], InstallSnapshot)
    return leader


def test_done_is_said_only_once_the_snapshot_is_durable() -> None:
    leader = installing()
    assert replies(leader.offer()) == [leader.reply(SIZE)]
    effects = leader.server.do_snapshot_work()
    assert replies(effects) == [leader.reply(SIZE, done=True)]


def test_nothing_is_appended_while_a_snapshot_is_installed() -> None:
    leader = installing()
    server = leader.server
    effects = server.receive(LEADER, AppendEntries(2, 9, 7, 1, 1, 0, (entry(2, 2),)))
    assert not of(AppendLog, effects)
    assert not sends(AppendReply, effects)


def test_nobody_stands_while_a_snapshot_is_installed() -> None:
    leader = installing()
    server = leader.server
    assert not sends(RequestVote, server.receive(LEADER, TimeoutNow(2, 9)))
    server.now_us += 10 * MAX_TIMEOUT_US
    assert not sends(PreVote, server.tick())
    server.do_snapshot_work()
    assert sends(PreVote, server.tick())


def test_nothing_is_applied_while_a_snapshot_is_installed() -> None:
    leader = installing(1, 2, 2)
    effects = leader.server.receive(LEADER, Heartbeat(2, 9, 7, 3))
    assert not of(Apply, effects)


def test_a_snapshot_is_not_installed_while_something_is_applied() -> None:
    server = follower(1, 2, 2)
    server.applies = False
    server.receive(LEADER, Heartbeat(2, 1, 7, 3))
    assert not of(InstallSnapshot, Sending(server).pieces())
    assert of(InstallSnapshot, server.finish_apply())


def test_a_snapshot_is_not_installed_while_something_is_read_to_be_applied() -> None:
    server = Server(2, log=log_of(1, 2, 2), vote=Vote(2), resident_from=4)
    server.reads = False
    server.receive(LEADER, Heartbeat(2, 1, 7, 3))
    assert not of(InstallSnapshot, Sending(server).pieces())
    assert of(InstallSnapshot, server.read_log())


def test_an_own_snapshot_that_is_ready_while_another_is_installed_changes_nothing() -> None:
    leader = installing(1, 2, 2)
    server = leader.server
    own = snapshot_of(log_of(1), 1, configuration_of(3))
    server.node.state.commit_index = server.node.state.applied_index = 1
    assert not of(CompactLog, server.step(SnapshotTaken(own.meta, 1)))
    server.do_snapshot_work()
    assert server.node.state.snapshot == FILE.meta


def test_another_snapshot_waits_until_this_one_is_installed() -> None:
    leader = installing()
    server = leader.server
    other = Sending(server, snapshot(*[1] * 12))
    assert not replies(other.offer())
    server.do_snapshot_work()
    assert replies(other.offer()) == [other.reply(0)]


def test_an_older_snapshot_that_is_offered_meanwhile_changes_nothing() -> None:
    leader = installing(1, 2, 2)
    server = leader.server
    assert not replies(Sending(server, snapshot(1, 2, 2)).offer())
    server.do_snapshot_work()
    assert server.node.log.base_index == 8


def test_whoever_offers_it_last_is_told_that_it_is_done() -> None:
    leader = installing()
    new = Sending(leader.server, term=3, sender=3)
    new.offer()
    effects = leader.server.do_snapshot_work()
    assert replies(effects) == [new.reply(SIZE, done=True)]


def test_a_damaged_file_changes_nothing_and_comes_again_from_the_start() -> None:
    leader = Sending(follower(1, 1))
    server = leader.server
    leader.pieces(SIZE - PIECE)
    rest = range(SIZE - SIZE % PIECE - (0 if SIZE % PIECE else PIECE), SIZE, PIECE)
    for offset in rest:
        effects = leader.piece(offset, bytes(len(FILE.data[offset : offset + PIECE])))
    assert "snapshot_damaged" in notes(effects)
    assert terms_of(server.node) == [1, 1]
    assert not server.node.state.installing
    assert replies(leader.offer()) == [leader.reply(0)]
    leader.pieces()
    assert server.node.log.base_index == 8


# --- when it is not needed


def test_a_snapshot_of_what_the_log_holds_is_done_at_once() -> None:
    server = follower(1, 2, 2, 2, 2, 2, 2, 2, 2)
    leader = Sending(server)
    effects = leader.offer()
    assert replies(effects) == [leader.reply(SIZE, done=True)]
    assert server.node.commit_index == 8, "a snapshot stands for what is committed"
    assert server.node.log.last_index == 9


def test_done_waits_for_the_own_disk_where_the_log_holds_it() -> None:
    server = follower(1, 2, 2, 2, 2, 2, 2)
    server.writes = False
    server.receive(LEADER, AppendEntries(2, 9, 7, 7, 2, 0, (entry(8, 2),)))
    server.outbox.clear()
    leader = Sending(server)
    leader.offer()
    assert not [send for send in server.outbox if isinstance(send.message, SnapshotReply)]
    server.write_log()
    assert [s.message for s in server.outbox if isinstance(s.message, SnapshotReply)] == [
        leader.reply(SIZE, done=True)
    ]


def test_an_entry_of_another_term_at_its_index_is_no_reason_to_do_without_it() -> None:
    leader = Sending(follower(1, 1, 1, 1, 1, 1, 1, 1, 1))
    assert replies(leader.offer()) == [leader.reply(0)]
    leader.pieces()
    assert leader.server.node.log.last_index == 8
    assert leader.server.node.log.base_term == 2


def test_a_log_that_has_caught_up_meanwhile_is_kept() -> None:
    server = follower(1, 2, 2)
    leader = Sending(server)
    leader.pieces(SIZE - PIECE)
    rest: tuple[Batch, ...] = tuple(entry(index, 2) for index in range(4, 10))
    server.receive(LEADER, AppendEntries(2, 90, 7, 3, 2, 0, rest))
    offset = len(range(0, SIZE - PIECE, PIECE)) * PIECE
    effects = leader.piece(offset)
    assert not of(InstallSnapshot, effects)
    assert replies(effects) == [leader.reply(SIZE, done=True)]
    assert server.node.log.last_index == 9


def test_a_log_that_catches_up_while_the_last_piece_is_written_is_kept() -> None:
    server = follower(1, 2, 2)
    leader = Sending(server)
    server.installs = False
    for offset in range(0, SIZE, PIECE):
        leader.piece(offset)
        if offset + PIECE < SIZE:
            server.do_snapshot_work()
    rest = tuple(entry(index, 2) for index in range(4, 10))
    server.receive(LEADER, AppendEntries(2, 90, 7, 3, 2, 0, rest))
    assert not of(InstallSnapshot, server.do_snapshot_work())
    assert server.node.log.last_index == 9
    assert replies(leader.offer()) == [leader.reply(SIZE, done=True)]


# --- a start from what is there


def test_a_crash_between_the_snapshot_and_the_cut_of_the_log_leads_to_the_same_state() -> None:
    for cut in (True, False):
        leader = Sending(follower(1, 1, 1))
        server = leader.server
        leader.pieces()
        if not cut:
            server.disk = log_of(1, 1, 1)
            server.disk_base, server.base_configuration = (0, 0), ()
        server.start()
        node = server.node
        assert (node.log.base_index, node.log.base_term, node.log.last_index) == (8, 2, 8)
        assert node.commit_index == node.applied_index == 8
        assert node.configuration == configuration_of(3)
        assert node.role is Role.FOLLOWER
        new = Sending(server)
        assert replies(new.offer()) == [new.reply(SIZE, done=True)]


def test_a_word_about_a_piece_that_nobody_waits_for_changes_nothing() -> None:
    server = follower()
    assert not server.step(SnapshotWritten(8, PIECE))
    leader = Sending(server)
    leader.offer()
    assert not server.step(SnapshotWritten(8, PIECE))
    assert replies(leader.offer()) == [leader.reply(0)]
