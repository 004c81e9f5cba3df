"""Prints docs/configuration.md from the table of keys, or writes it to the path that is given."""

from __future__ import annotations

import json

from raft_agent.config.schema import EXPORT_FIELDS, FIELDS, PEER_FIELDS, Field, environment_name
from raft_agent.logs import PARTS
from raft_agent.machine.settings import SETTINGS
from tools.pages import put_out

HEAD = """\
# Configuration

*Written by `make docs` from `node_agent/raft_agent/config/model.py`.*

An agent reads one TOML file, `raft-agent --config raft.toml`. Every key can also be set by an
environment variable, which wins over the file, and by `--set section.key=value`, which wins over
both. In variables and with `--set`, lists are separated by commas; an empty variable counts as not
set, and an empty `--set` puts back the default. Relative paths count from the directory that the
agent is started in.

`raft-agent --config raft.toml --check` validates and ends. Unknown keys, wrong types and values
that can't work are refused, all at once, with file, line and what would be right; the exit status
is then 2. SIGHUP reads the file again and puts the log levels in force, and it reads the files that
`[tls]` names, which are also read when they change; everything else needs a restart.
"""

PEERS = """\
## [[peers]]

The other members, one table each, for the first start only: afterwards the replicated configuration
is the truth. The same list may serve all nodes, as the own entry is left out. `RAFT_PEERS` and
`--set peers=…` take `node-02=10.0.0.2:5555,node-03=10.0.0.3:5555`.
"""

EXPORTS = """\
## [[ebpf.export]]

Maps that the cluster exports ([exports.md](exports.md)), one table each. The leader declares those
whose names were never exported; afterwards `raftctl export` is the way to change them, and what the
log says is the truth.
"""

SHARED = """\
## Replicated settings

They are not keys of the file: all nodes share them, so they are changed through the log, while the
cluster runs, by `raftctl settings set NAME VALUE`; `raftctl settings list` shows what is in force.

| name | default | range | meaning |
|---|---|---|---|
"""

LOGS = """\
## Logs

One line per fact on standard error: time, level, part, node, term, role and text. Two variables
are no keys of the file: `RAFT_LOG` sets levels on top of `server.log_level`, in the same form, and
`RAFT_LOG_FORMAT=json` writes one JSON object a line, as `server.log_format` does. (A third one,
`RAFT_TEST_EXCUSES`, is for tests of elections alone: [testing.md](testing.md).) The parts are
"""


def default_of(field: Field) -> str:
    if field.required:
        return "required"
    if field.key.default:
        return field.key.default
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{json.dumps(value)}`"


def page() -> str:
    lines = [HEAD]
    for section, fields in FIELDS.items():
        lines += [
            f"## [{section}]",
            "",
            "| key | default | meaning | variable |",
            "|---|---|---|---|",
        ]
        for name, field in fields.items():
            variable = environment_name(section, name)
            lines.append(f"| `{name}` | {default_of(field)} | {field.key.text} | `{variable}` |")
        lines.append("")
    lines += [PEERS, "| key | default | meaning |", "|---|---|---|"]
    for name, field in PEER_FIELDS.items():
        lines.append(f"| `{name}` | {default_of(field)} | {field.key.text} |")
    lines += ["", EXPORTS, "| key | default | meaning |", "|---|---|---|"]
    for name, field in EXPORT_FIELDS.items():
        lines.append(f"| `{name}` | {default_of(field)} | {field.key.text} |")
    lines += ["", SHARED.rstrip("\n")]
    for name, setting in SETTINGS.items():
        span = f"{setting.lowest} to {setting.highest}"
        meaning = f"{setting.meaning[:1].upper()}{setting.meaning[1:]}."
        lines.append(f"| `{name}` | `{setting.default}` | {span} | {meaning} |")
    parts = ", ".join(f"`raft.{part}`" for part in PARTS)
    lines += ["", f"{LOGS}{parts}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    put_out(page())
