"""A real agent finds out that its program does not see the packets, says so, and sees again."""

from __future__ import annotations

import errno

import pytest

from raft_agent.api.protocol import EbpfStatus
from tests.e2e.agents import Agent, wait_for
from tests.kernel import netns, programs
from tests.kernel.clusters import ebpf, isolated_cluster, kernel, wait_for_state


def _kinds(agent: Agent) -> list[str]:
    return [event.kind for event in agent.events() if event.kind.startswith("kernel_")]


def _says(agent: Agent, words: str) -> EbpfStatus | None:
    found = ebpf(agent)
    return found if found is not None and words in found.reason else None


def test_a_tcx_program_in_front_is_found_out_and_the_filter_goes_off() -> None:
    with isolated_cluster(ebpf='firewall = "enforce"') as cluster:
        cluster.leader()
        cluster.wait_attached()
        node = cluster.followers()[0]
        with netns.inside(cluster.namespaces[node.name]):
            index = netns.index_of(cluster.namespaces[node.name], "eth0")
            try:
                with programs.tcx_in_front(index, "swallows"):
                    wait_for_state(node, "attached-but-bypassed")
                    found = wait_for("the reason", lambda: _says(node, "TCX program swallows on"))
                    assert "the firewall is off instead of enforce" in found.reason
                    assert found.firewall == "off"
                    assert kernel(node).in_front == ["TCX program swallows on eth0"]
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                pytest.skip("this kernel has no TCX (Linux 6.6)")
        assert wait_for_state(node, "attached").firewall == "enforce"
        kinds = _kinds(node)
        assert kinds.index("kernel_bypassed") < len(kinds) - 1 - kinds[::-1].index(
            "kernel_attached"
        )


def test_an_interface_that_the_peers_do_not_use_counts_as_bypassed() -> None:
    with isolated_cluster(ebpf="", interface="lo") as cluster:
        cluster.leader()
        node = cluster.followers()[0]
        found = wait_for_state(node, "attached-but-bypassed")
        assert found.interfaces == ["lo"]
        assert 'ebpf.interface = "auto" finds it' in found.reason


def test_the_interface_is_unplugged_and_comes_back() -> None:
    with isolated_cluster(interface="eth0") as cluster:
        cluster.leader()
        cluster.wait_attached()
        node = cluster.followers()[0]
        namespace = cluster.namespaces[node.name]
        netns.ip("-n", namespace, "link", "delete", "eth0")
        found = wait_for_state(node, "degraded")
        assert 'there is no interface "eth0"' in found.reason
        netns.plug(cluster.hub, namespace, node.name, f"{cluster.addresses[node.name]}/24")
        wait_for_state(node, "attached")
        wait_for("it to see its peers again", lambda: kernel(node).peers or None)


def test_a_plain_ingress_qdisc_is_refused_in_words_and_the_cluster_runs() -> None:
    with isolated_cluster(ebpf="", start=False) as cluster:
        node = cluster.agents["node-01"]
        netns.tc(cluster.namespaces["node-01"], "qdisc", "add", "dev", "eth0", "ingress")
        cluster.start()
        assert cluster.leader()
        found = wait_for_state(node, "degraded")
        assert "eth0 has a plain ingress qdisc" in found.reason


def test_a_crash_and_a_stop_leave_one_filter_and_none() -> None:
    with isolated_cluster() as cluster:
        cluster.leader()
        cluster.wait_attached()
        node = cluster.followers()[0]
        namespace = cluster.namespaces[node.name]

        def filters() -> list[int]:
            sides = ("ingress", "egress")
            shown = [netns.tc(namespace, "filter", "show", "dev", "eth0", side) for side in sides]
            return [text.count("raft_") for text in shown]

        once = filters()
        assert all(once)
        node.kill()
        assert filters() == once
        node.start()
        wait_for_state(node, "attached")
        assert filters() == once
        assert node.stop() == 0
        assert filters() == [0, 0]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--bpf-object", "/nowhere/x.o"), "the program /nowhere/x.o is missing"),
        (("--bpf-object", __file__), "is no BPF object that libbpf can read"),
    ],
)
def test_without_a_program_the_cluster_runs_and_says_what_is_missing(
    option: tuple[str, ...], said: str
) -> None:
    with isolated_cluster(options=option) as cluster:
        assert cluster.leader()
        assert said in wait_for_state(cluster.agents["node-01"], "degraded").reason


def _only(*capabilities: str) -> list[str]:
    """In front of a command: root without any other capability."""
    kept = "".join(f",+{capability}" for capability in capabilities)
    return ["setpriv", f"--bounding-set=-all{kept}", "--inh-caps=-all"]


def test_without_the_capabilities_the_cluster_runs_and_says_how_to_get_them() -> None:
    with isolated_cluster(wrapper=_only()) as cluster:
        assert cluster.leader()
        found = wait_for_state(cluster.agents["node-01"], "degraded")
        assert "without CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON: run as root" in found.reason


def test_a_few_capabilities_are_enough() -> None:
    with isolated_cluster(wrapper=_only("bpf", "net_admin", "perfmon")) as cluster:
        assert cluster.leader()
        cluster.wait_attached()
