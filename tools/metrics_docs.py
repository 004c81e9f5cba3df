"""Prints docs/metrics.md from the table of metrics, or writes it to the path that is given."""

from __future__ import annotations

from raft_agent.http.families import GROUPS, PROCESS
from raft_agent.http.family import Group, Kind
from tools.pages import put_out

HEAD = """\
# Metrics

*Written by `make docs` from `node_agent/raft_agent/http/families.py`.*

With `http_addr` in `[server]` an agent serves, to everybody who can reach that address and without
TLS:

| path | answer |
|---|---|
| `/` | the status page: members, log, latencies and a timeline, pushed as they change |
| `/metrics` | what this page lists, in the text formats of Prometheus and OpenMetrics |
| `/healthz` | 200 while the agent is alive: its event loop goes round |
| `/readyz` | 200 while it can serve clients; else 503 and a line with the reason |

Nothing can be changed there, and nothing but GET and HEAD is answered. Each agent tells of itself;
what it says of other members is its own view, and that of the leader counts. Counters begin with
the agent's start. Histograms have buckets by powers of two, from 16 µs to 34 s; those of the kernel
part from 2 µs on.

[monitoring/](monitoring/README.md) has a dashboard for Grafana and alert rules for Prometheus.
"""


def section(group: Group) -> list[str]:
    lines = [f"## {group.title}", "", "| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for family in group.families:
        labels = ", ".join(f"`{label}`" for label in family.labels) or "-"
        lines.append(f"| `{family.name}` | {family.kind} | {labels} | {family.help} |")
    return [*lines, ""]


def names() -> set[str]:
    """Every name under which Prometheus has a series of an agent."""
    found = set()
    for group in (*GROUPS, PROCESS):
        for family in group.families:
            ends = ("_bucket", "_sum", "_count") if family.kind is Kind.HISTOGRAM else ("",)
            found |= {family.name + end for end in ends}
    return found


def page() -> str:
    lines = [HEAD]
    for group in (*GROUPS, PROCESS):
        lines += section(group)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    put_out(page())
