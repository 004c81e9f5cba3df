"""Configurations that can't be in force, in the log and out of it."""

from __future__ import annotations

import pytest

from raft_agent.consensus.batch import Batch, BatchKind, encode
from raft_agent.consensus.membership import Membership, encode_configuration, read_configuration
from raft_agent.consensus.types import Configuration
from tests.unit.consensus.server import configuration_of


def configuration_batch(configuration: Configuration, index: int = 1, count: int = 1) -> Batch:
    payload = encode_configuration(configuration)
    return encode(BatchKind.CONFIGURATION, index, 1, count, payload)


def test_a_configuration_is_read_as_it_was_written() -> None:
    assert read_configuration(configuration_batch(configuration_of(3))) == configuration_of(3)


@pytest.mark.parametrize(
    "batch",
    [
        configuration_batch(Configuration("c1", (), ())),
        configuration_batch(configuration_of(3), count=2),
        encode(BatchKind.CONFIGURATION, 1, 1, 1, b"\xc1"),
    ],
    ids=["no voters", "two entries", "no configuration"],
)
def test_a_configuration_that_nobody_could_act_on_is_none(batch: Batch) -> None:
    assert read_configuration(batch) is None
    with pytest.raises(ValueError, match="the configuration at index 1 can't be read"):
        Membership([]).append(batch)


def test_a_cut_that_takes_all_configurations_leaves_none() -> None:
    membership = Membership([])
    membership.append(configuration_batch(configuration_of(3)))
    membership.append(configuration_batch(configuration_of(5), index=4))
    assert not membership.truncate(5)
    assert membership.truncate(4)
    assert membership.current == configuration_of(3)
    assert membership.truncate(1)
    assert membership.current is None
    assert not membership.truncate(1)
