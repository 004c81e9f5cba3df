"""Compares the objects of a cluster with what they should be."""

from __future__ import annotations

import msgspec

from raft_operator import resources
from raft_operator.kube import BUDGETS, SERVICES, Kind, Kube, Object
from raft_operator.model import Membership
from raft_operator.observation import View
from raft_operator.pods import BOOTSTRAP_KEY, CLUSTER_ID_KEY
from raft_operator.resources import is_as_applied

CERTIFICATES = "certificates"
_OLD_BUDGETS = Kind("policy/v1beta1", BUDGETS.plural)


class Drift(msgspec.Struct):
    """What is to be written: each object with the one that it takes the place of, None where there
    is none. `names` are for people."""

    names: tuple[str, ...] = ()
    objects: list[tuple[Object, Object | None]] = []
    unwanted_budget: Object | None = None
    budget_kind: Kind | None = None


async def compare(
    kube: Kube, view: View, membership: Membership | None, certificates_are_due: bool
) -> Drift:
    """Raises KubeError."""
    drift = Drift()
    names = [CERTIFICATES] if certificates_are_due else []
    pairs = [
        (wanted, await kube.get(SERVICES, view.key.namespace, wanted["metadata"]["name"]))
        for wanted in resources.services(view.owner, view.spec)
    ]
    if view.config_map is not None:
        remembered = view.config_map.get("data") or {}
        wanted = resources.config_map(
            view.owner,
            view.spec,
            bootstrap=remembered.get(BOOTSTRAP_KEY) == "true",
            cluster_id=remembered.get(CLUSTER_ID_KEY, ""),
        )
        pairs.append((wanted, view.config_map))
    if view.stateful_set is not None:
        count = view.stateful_set["spec"]["replicas"]
        wanted = resources.stateful_set(view.owner, view.spec, count)
        pairs.append((wanted, view.stateful_set))
    pairs += await _budget(kube, view, membership, drift)
    drift.objects = [pair for pair in pairs if not is_as_applied(pair[1], pair[0])]
    names += [f"{wanted['kind']} {wanted['metadata']['name']}" for wanted, _ in drift.objects]
    if drift.unwanted_budget is not None:
        names.append("PodDisruptionBudget")
    drift.names = tuple(names)
    return drift


async def _budget(
    kube: Kube, view: View, membership: Membership | None, drift: Drift
) -> list[tuple[Object, Object | None]]:
    is_current = await kube.has_version(BUDGETS.api_version)
    kind = BUDGETS if is_current else _OLD_BUDGETS
    found = await kube.get(kind, view.key.namespace, view.key.budget)
    if not view.spec.pdb.enabled:
        drift.unwanted_budget, drift.budget_kind = found, kind
        return []
    if membership is None:
        return []
    voters = len(membership.voters)
    return [(resources.disruption_budget(view.owner, voters, kind.api_version), found)]
