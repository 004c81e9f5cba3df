"""Exported maps on Debian's kernels: the tests of this host's kernel, run on those."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel import harness, machines
from tests.kernel.machines import Machine

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
TESTS = ("test_exported_maps.py", "test_export_readers.py", "test_export_side.py")
# This host's Python runs there, so they are of its architecture.
MACHINES = [machine for machine in machines.MACHINES if machine.architecture == "amd64"]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_maps_are_kept_and_read_as_on_this_kernel(machine: Machine, tmp_path: Path) -> None:
    reason = machines.missing(machine)
    if reason is not None:
        pytest.skip(reason)
    program = tmp_path / "deny.bpf.o"
    harness.run("make", "-s", "-C", ROOT / "examples" / "deny-list", f"OBJECT={program}")
    given = {
        "deny.bpf.o": program.read_bytes(),
        "checkout/bpf/raft_export.h": (ROOT / "bpf" / "raft_export.h").read_bytes(),
    }
    lines = machines.boot_pytest(machine, [f"tests/kernel/{name}" for name in TESTS], given)
    results = [line.split(maxsplit=2)[1:] for line in lines if line.startswith("result ")]
    assert "status 0" in lines, "\n".join(lines)
    assert {outcome for outcome, _ in results} == {"passed"}, "\n".join(lines)
    for name in TESTS:
        assert any(name in test for _, test in results), "\n".join(lines)
