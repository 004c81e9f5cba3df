"""The Kubernetes that the other tests stand on is a real one."""

from __future__ import annotations

import contextlib

import pytest

from tests.e2e.agents import wait_for
from tests.e2e.kube.lab.lab import Lab
from tests.e2e.kube.place import Place

pytestmark = pytest.mark.long


def test_a_pod_runs_on_each_node_with_the_network_of_the_node(place: Place, lab: Lab) -> None:
    with place.namespace("smoke") as namespace:
        labels = {"app": "smoke"}
        place.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": {"name": "smoke", "namespace": namespace},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {
                            "hostNetwork": True,
                            "terminationGracePeriodSeconds": 0,
                            "containers": [
                                {
                                    "name": "agent",
                                    "image": place.agent_image,
                                    "command": ["sleep", "infinity"],
                                }
                            ],
                        },
                    },
                },
            }
        )
        place.kubectl("rollout", "status", "-n", namespace, "daemonset/smoke", "--timeout=120s")
        pods = place.api.items(f"/api/v1/namespaces/{namespace}/pods")
        found = {pod["spec"]["nodeName"]: pod["status"]["podIP"] for pod in pods}
        assert found == {node.name: node.address for node in lab.nodes.values()}
        pod = pods[0]["metadata"]["name"]

        def version() -> str | None:
            # A pod counts as running a moment before one can get into it.
            with contextlib.suppress(AssertionError):
                return place.kubectl("exec", "-n", namespace, pod, "--", "raft-agent", "--version")
            return None

        assert "raft-agent" in wait_for("a command to run in the pod", version)
