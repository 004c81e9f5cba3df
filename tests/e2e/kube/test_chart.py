"""The operator as the chart installs it: a pod with the rights that the chart gives it."""

from __future__ import annotations

import pytest

from tests.e2e.kube.clusters import clusters
from tests.e2e.kube.lab.lab import Lab
from tests.e2e.kube.place import Operator, Place

pytestmark = pytest.mark.long


def test_the_operator_of_the_chart_makes_a_cluster_available(
    place: Place, lab: Lab, operator: Operator
) -> None:
    rendering = pytest.importorskip("tests.unit.chart.rendering")
    operator.kill()  # this one takes its place
    node = lab.nodes["node-5"]
    node.containers.load("operator")
    repository, _, tag = place.operator_image.rpartition(":")
    values = {
        "image": {"repository": repository, "tag": tag},
        "nodeSelector": {"kubernetes.io/hostname": node.name},
        "watch": {"namespaces": ["watched"]},
    }
    documents = rendering.render(values, namespace="raft-system")
    with place.namespace("raft-system"), place.namespace("watched") as namespace:
        mine = [each for each in documents if not rendering.is_test(each)]
        definitions = [each for each in mine if each["kind"] == "CustomResourceDefinition"]
        place.apply(*definitions, *(each for each in mine if each not in definitions))
        deployment = rendering.only(documents, "Deployment")["metadata"]["name"]
        place.kubectl("rollout", "status", "--namespace=raft-system", f"deployment/{deployment}",
                      "--timeout=90s")  # fmt: skip
        with clusters(place, namespace) as make:
            cluster = make("raft")
            cluster.create(3)
            cluster.wait_settled(3, 90)
            assert cluster.asked("raft-0", "status")["leader"] == cluster.leader()
        bare = [each for each in mine if "namespace" not in each["metadata"]]
        for each in bare:
            if each["kind"] != "CustomResourceDefinition":
                place.kubectl("delete", each["kind"], each["metadata"]["name"])
