"""Where our filters are: once, on both sides, beside everybody else's, and gone without a trace."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from raft_agent.kernel import tc
from raft_agent.kernel.tc import AttachError
from tests.kernel import netns, programs

PORT, OTHER_PORT = 5555, 6001


@pytest.fixture
def link() -> Iterator[tuple[str, int]]:
    """(namespace, index of its eth0); the test runs inside."""
    with netns.namespaces("a", "b") as (here, there):
        netns.connect(here, there, "10.9.0.1/24", "10.9.0.2/24")
        with netns.inside(here):
            yield here, netns.index_of(here, "eth0")


def _filters(namespace: str, side: str) -> list[str]:
    lines = netns.tc(namespace, "filter", "show", "dev", "eth0", side).splitlines()
    return [line for line in lines if "handle" in line]


def _attach(index: int, port: int = PORT) -> None:
    with programs.pair() as pair, IPRoute() as ipr:
        tc.attach(ipr, index, "eth0", port, pair)


def _add_foreign(index: int, *, prio: int, handle: int) -> None:
    """Somebody else's filter on ingress, with the clsact qdisc if that is missing."""
    with programs.pair() as pair, IPRoute() as ipr:
        if not any(qdisc.get("kind") == "clsact" for qdisc in ipr.tc("dump", index=index)):
            ipr.tc("add", "clsact", index=index)
        # fmt: off
        ipr.tc("add-filter", "bpf", index=index, parent=0xFFFFFFF2, fd=pair.ingress_fd,
               name="theirs", direct_action=True, prio=prio, handle=handle)
        # fmt: on


def _detach(index: int, port: int = PORT) -> None:
    with IPRoute() as ipr:
        tc.detach(ipr, index, port)


def test_attaching_again_leaves_one_filter_on_each_side(link: tuple[str, int]) -> None:
    namespace, index = link
    for _ in range(3):  # the second and third as after a crash: nobody had detached
        _attach(index)
    for side, name in (("ingress", "raft_ingress"), ("egress", "raft_egress")):
        assert [name in line and "direct-action" in line for line in _filters(namespace, side)] == [
            True
        ]


def test_an_attached_filter_is_found_again(link: tuple[str, int]) -> None:
    _, index = link
    with IPRoute() as ipr:
        assert not tc.is_attached(ipr, index, PORT)
        _attach(index)
        assert tc.is_attached(ipr, index, PORT)
        assert not tc.is_attached(ipr, index, OTHER_PORT)


def test_half_an_attachment_is_none(link: tuple[str, int]) -> None:
    namespace, index = link
    _attach(index)
    netns.tc(namespace, "filter", "del", "dev", "eth0", "egress")
    with IPRoute() as ipr:
        assert not tc.is_attached(ipr, index, PORT)


def test_two_agents_share_an_interface_and_leave_it_one_by_one(link: tuple[str, int]) -> None:
    namespace, index = link
    _attach(index, PORT)
    _attach(index, OTHER_PORT)
    assert len(_filters(namespace, "ingress")) == 2
    _detach(index, PORT)
    with IPRoute() as ipr:
        assert tc.is_attached(ipr, index, OTHER_PORT)
        assert not tc.is_attached(ipr, index, PORT)


def test_foreign_filters_and_the_clsact_qdisc_outlive_us(link: tuple[str, int]) -> None:
    namespace, index = link
    _add_foreign(index, prio=7, handle=1)
    _add_foreign(index, prio=tc.PRIORITY, handle=OTHER_PORT)
    before = netns.tc(namespace, "filter", "show", "dev", "eth0", "ingress")
    _attach(index)
    _detach(index)
    assert netns.tc(namespace, "filter", "show", "dev", "eth0", "ingress") == before
    assert "clsact" in netns.tc(namespace, "qdisc", "show", "dev", "eth0")


def test_detaching_where_nothing_is_does_nothing(link: tuple[str, int]) -> None:
    namespace, index = link
    before = netns.tc(namespace, "qdisc", "show", "dev", "eth0")
    _detach(index)
    _detach(index + 100)
    assert netns.tc(namespace, "qdisc", "show", "dev", "eth0") == before
    assert "clsact" not in before


def test_a_foreign_filter_at_our_place_is_neither_replaced_nor_removed(
    link: tuple[str, int],
) -> None:
    namespace, index = link
    _add_foreign(index, prio=tc.PRIORITY, handle=PORT)
    with pytest.raises(AttachError, match="another program's bpf filter theirs"):
        _attach(index)
    _detach(index)
    assert ["theirs" in line for line in _filters(namespace, "ingress")] == [True]


def test_a_plain_ingress_qdisc_is_refused_and_left_alone(link: tuple[str, int]) -> None:
    """It has the handle of clsact, so the egress filter would end up on its ingress."""
    namespace, index = link
    netns.tc(namespace, "qdisc", "add", "dev", "eth0", "ingress")
    with pytest.raises(AttachError, match="plain ingress qdisc"):
        _attach(index)
    assert "qdisc ingress" in netns.tc(namespace, "qdisc", "show", "dev", "eth0")
    assert _filters(namespace, "ingress") == []


def test_an_interface_that_is_gone_is_an_error_for_people(link: tuple[str, int]) -> None:
    _, index = link
    with pytest.raises(AttachError, match="eth0 takes no filter: No such device"):
        _attach(index + 100)


def test_who_stands_in_front_is_named(link: tuple[str, int]) -> None:
    _, index = link
    _attach(index)
    with IPRoute() as ipr:
        assert tc.in_front(ipr, index) == []
        _add_foreign(index, prio=7, handle=1)
        _add_foreign(index, prio=900, handle=1)
        assert tc.in_front(ipr, index) == ["bpf filter theirs with priority 7"]


def test_a_tcx_program_in_front_is_named(link: tuple[str, int]) -> None:
    _, index = link
    _attach(index)
    try:
        with programs.tcx_in_front(index, "swallows"), IPRoute() as ipr:
            assert tc.in_front(ipr, index) == ["TCX program swallows"]
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        pytest.skip("this kernel has no TCX (Linux 6.6)")
    with IPRoute() as ipr:
        assert tc.in_front(ipr, index) == []
