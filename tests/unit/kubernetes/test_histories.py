"""Whatever happens to a cluster and to its operator: the quorum is never lost by the operator's own
hand, no identity is ever used twice, and once the faults end all is as it was asked for.

The world judges each act of the operator while a history runs. An operator can be cut off before
any of its calls, be replaced by one that remembers nothing, and have a second one beside it that
acts on what it saw before.
"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.unit.kubernetes.driving import Turn, make_engine, settle
from tests.unit.kubernetes.world import BAD_IMAGE, KEY, World

NODES = 7
IMAGES = ("agent:1", "agent:2", "agent:3", BAD_IMAGE)


class Act(msgspec.Struct, frozen=True):
    """What happens, then how the operator's next turns go on. `cut`: before which of its calls it
    is killed, if it makes as many. `weave`: the order in which two operators make their calls, bit
    by bit, None for one operator alone."""

    what: str
    number: int
    cut: int
    weave: int | None


acts = st.builds(
    Act,
    what=st.sampled_from(
        (
            "nothing",
            "nothing",
            "kill pod",
            "kill agent",
            "fail node",
            "mend nodes",
            "lose node",
            "scale",
            "image",
            "another leader",
            "forget",
            "wait",
        )
    ),
    number=st.integers(0, 8),
    cut=st.integers(0, 60),
    weave=st.none() | st.integers(0, 2**24),
)
histories = st.lists(acts, min_size=8, max_size=40)


def happen(world: World, act: Act) -> None:
    number = act.number
    name = KEY.pod(number % 5)
    node = f"n{number % NODES}"
    if act.what == "kill pod":
        world.kill_pod(name)
    elif act.what == "kill agent":
        world.kill_agent(name)
    elif act.what == "fail node" and node in world.nodes:
        world.fail_node(node)
    elif act.what == "mend nodes":
        for known in world.nodes:
            world.mend_node(known)
    elif act.what == "lose node" and node in world.nodes and len(world.nodes) > NODES - 2:
        # A majority of the voters keeps what it has, or nobody could mend it.
        if world.intact_voters() - world.lost_by(node) > len(world.raft.voters()) // 2:
            world.lose_node(node)
    elif act.what == "scale":
        world.change_spec(replicas=(1, 3, 5)[number % 3])
    elif act.what == "image":
        world.change_spec(image=IMAGES[number % 4])
    elif act.what == "another leader":
        others = [voter for voter in world.raft.voters() if world.raft.running(voter.id)]
        if world.raft.leader and others:
            world.raft.leader = others[number % len(others)].id
            world.raft.term += 1
    elif act.what == "forget":
        world.resource.pop("status", None)
    elif act.what == "wait":
        world.tick(100.0 * number)


def run(history: list[Act]) -> None:
    world = World({"replicas": 3}, node_count=NODES)
    first, second = make_engine(world), make_engine(world)
    for act in history:
        happen(world, act)
        world.tick(1.0)
        turns = [Turn(first)]
        if act.weave is not None:
            turns.append(Turn(second))
        order = act.weave or 0
        for call in range(200):
            if not turns:
                break
            if call == act.cut:
                turns.pop(0).cut_off()
                first, second = second, make_engine(world)
                continue
            turn = turns[order & 1 if len(turns) == 2 else 0]
            order >>= 1
            if not turn.go_on():
                turns.remove(turn)
        for turn in turns:
            turn.cut_off()
    for node in world.nodes:
        world.mend_node(node)
    if world.resource["spec"]["image"] == BAD_IMAGE:
        world.change_spec(image="agent:4")
    settle(world, make_engine(world), turns=500, wait_s=10.0)
    assert world.raft.founded == 1


RELAXED = {
    "deadline": None,
    # A history takes long, and a shorter one that fails would take minutes to find.
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
    "phases": [Phase.explicit, Phase.generate],
}


@settings(max_examples=200, **RELAXED)  # type: ignore[arg-type]
@given(histories)
def test_every_history_ends_well(history: list[Act]) -> None:
    run(history)


@pytest.mark.long
@settings(max_examples=2000, **RELAXED)  # type: ignore[arg-type]
@given(histories)
def test_two_thousand_histories_end_well(history: list[Act]) -> None:
    run(history)
