"""What people are told of the members."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import Configuration, Joining, Member
from raft_agent.runtime.views import members_line

ONE, TWO, THREE = (Member(number, f"node-0{number}", f"h{number}:1") for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("configuration", "line"),
    [
        (Configuration("c", (ONE, TWO), (1, 2)), "node-01, node-02"),
        (Configuration("c", (ONE, TWO), (1,), learners=(2,)), "node-01, node-02 (learner)"),
        (
            Configuration("c", (ONE, TWO), (1,), learners=(2,), joining=(Joining(2, 0),)),
            "node-01, node-02 (learner, joining)",
        ),
        # Joint (§6 of the paper): the second takes the third's place.
        (
            Configuration("c", (ONE, TWO, THREE), (1, 2), voters_outgoing=(1, 3)),
            "node-01, node-02 (becoming a voter), node-03 (leaving)",
        ),
    ],
)
def test_every_step_of_a_change_reads_differently(configuration: Configuration, line: str) -> None:
    assert members_line(configuration) == line
