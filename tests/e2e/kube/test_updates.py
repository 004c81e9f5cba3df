"""Members get another image one by one, the leader last, while clients write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.kube.clusters import Cluster
from tests.e2e.kube.place import Place

pytestmark = pytest.mark.long


def test_three_members_are_updated_under_load_within_90_s(
    make: Callable[[str], Cluster], place: Place
) -> None:
    cluster = make("raft")
    cluster.create(3)
    before = cluster.wait_settled(3)
    image, _, tag = place.later_image.rpartition(":")
    with cluster.writing() as writers:
        cluster.change(image=image, version=tag)

        def updated() -> bool | None:
            images = {pod["spec"]["containers"][0]["image"] for pod in cluster.pods().values()}
            return True if images == {place.later_image} else None

        cluster.wait("to be updated", updated, 90)
        after = cluster.wait_settled(3)
    assert writers.longest_gap_s() < 1.0
    ids = {each["name"]: each["id"] for each in before["members"]}
    assert ids == {each["name"]: each["id"] for each in after["members"]}
