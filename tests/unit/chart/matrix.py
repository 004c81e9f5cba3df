"""Values with which people may install the chart; each alone, some together, and all at once."""

from __future__ import annotations

import random
from typing import Any

LABELS = {"example.com/team": "storage"}

VARIATIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "one namespace": {"watch": {"namespaces": ["shop"]}},
    "namespaces": {"watch": {"namespaces": ["shop", "raft-system", "a-1"]}},
    "digest": {"image": {"repository": "r.example.com/x/op", "digest": f"sha256:{'0a' * 32}"}},
    "tag": {"image": {"tag": "2.0.0-rc.1", "pullPolicy": "Always"}},
    "pull secrets": {"imagePullSecrets": [{"name": "registry"}]},
    "name": {"fullnameOverride": "raft-for-all"},
    "labels": {"commonLabels": LABELS | {"app.kubernetes.io/name": "not-that-one"}},
    "no definition": {"crds": {"enabled": False}},
    "definition that goes": {"crds": {"keep": False}},
    "no roles": {"rbac": {"create": False, "aggregate": False}},
    "no account": {"serviceAccount": {"create": False}},
    "account": {"serviceAccount": {"name": "somebody", "annotations": {"a": "b"}}},
    "log": {"log": {"level": "debug", "format": "text"}, "health": {"port": 18080}},
    "pod": {
        "podAnnotations": {"example.com/note": "x: y"},
        "podLabels": LABELS,
        "priorityClassName": "system-cluster-critical",
        "extraEnv": [
            {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}
                    ]
                }
            }
        },
    },
    "nothing of its own": {"resources": {}, "podSecurityContext": {}, "securityContext": {}},
    "network policy": {
        "networkPolicy": {
            "enabled": True,
            "apiServerPorts": [6443],
            "apiServerCIDRs": ["10.0.0.1/32"],
            "agentPorts": [5555, 5556],
            "nodeCIDRs": ["10.0.0.0/16", "fd00::/8"],
        }
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "interval": "30s", "labels": LABELS},
        "alerts": {"enabled": True, "labels": LABELS, "without": ["RaftFsyncSlow"]},
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Raft"}},
    },
}


def merged(*values: dict[str, Any]) -> dict[str, Any]:
    """Several at once; later ones win where they can't be joined."""
    result: dict[str, Any] = {}
    for one in values:
        for key, value in one.items():
            joins = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if joins else value
    return result


def _some_together(count: int) -> dict[str, dict[str, Any]]:
    """Sets of five that are drawn by lot, so that most pairs meet; the same ones every time."""
    lot = random.Random(1)
    drawn = (sorted(lot.sample(sorted(VARIATIONS), 5)) for _ in range(count))
    return {" + ".join(names): merged(*(VARIATIONS[name] for name in names)) for names in drawn}


MATRIX = VARIATIONS | _some_together(20) | {"everything": merged(*VARIATIONS.values())}
