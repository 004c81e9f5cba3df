"""The kernel side: the TC program's loader, its maps, events, faults and filter.

The kernel observes, counts and filters; consensus is exactly as correct without it. `bpf/` has the
program, `docs/kernel.md` tells what it sees and what that costs.
"""

from __future__ import annotations

from pathlib import Path

OBJECT_PATH = Path(__file__).with_name("raft_tc.bpf.o")
"""The compiled program as it is shipped; `make bpf` builds it anew."""
