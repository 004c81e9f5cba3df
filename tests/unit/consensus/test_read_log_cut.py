"""A read of the log that was under way while the log was cut."""

from __future__ import annotations

from raft_agent.consensus.types import AppendEntries, Heartbeat
from tests.unit.consensus.server import Server, entry, log_of


def test_what_was_read_before_a_cut_is_not_applied_after_it() -> None:
    """A read for applying brings whole batches, some not committed yet: those may be cut, and
    others committed in their place, before the read's answer comes."""
    server = Server(log=log_of(1, 1, 1), resident_from=4)
    server.reads = False
    server.receive(2, Heartbeat(1, 1, 1, 2))
    (asked,) = server.reading
    read_before_the_cut = server.answer_to(asked)
    assert [(b.last_index, b.term) for b in read_before_the_cut.batches] == [(1, 1), (2, 1), (3, 1)]
    server.receive(3, AppendEntries(2, 1, 1, 2, 1, 3, (entry(3, 2),)))
    assert server.node.commit_index == 3
    server.step(read_before_the_cut)
    assert [(batch.last_index, batch.term) for batch in server.applied] == [(1, 1), (2, 1), (3, 2)]
