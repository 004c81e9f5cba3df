"""The first and only process of a virtual machine: sets up its network, mounts its disk, and is
raft-agent until the power fails. Its arguments: an address as 10.78.1.1/24, then the kernel's
modules in the order in which they are loaded.

The disk holds raft.toml and the certificates; what the agent prints goes to the console.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

DISK = "/disk"
_FINIT_MODULE = 313  # <asm/unistd_64.h>, and amd64 alone
_POWER_OFF = 0x4321FEDC  # RB_POWER_OFF of <sys/reboot.h>
_MOUNTS = (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"))
_DEVICE_S = 60


def main() -> None:
    address, *modules = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    for kind, place in _MOUNTS:
        if libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None):
            raise OSError(ctypes.get_errno(), f"mount {place}")
    for name in modules:
        with Path(f"/modules/{name}.ko").open("rb") as file:
            if libc.syscall(_FINIT_MODULE, file.fileno(), b"", 0):
                raise OSError(ctypes.get_errno(), f"load the module {name}")
    _wait_for("/sys/class/net/eth0")
    _wait_for("/dev/vda")
    cache = Path("/sys/block/vda/queue/write_cache").read_text().strip()
    # Else its system would not flush the disk, and nothing would be shown.
    assert cache == "write back", cache
    for words in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "addr", "add", address, "dev", "eth0"],
        ["ip", "link", "set", "eth0", "up"],
        ["mount", "-t", "ext4", "/dev/vda", DISK],
    ):
        subprocess.run(words, check=True)
    os.chdir(DISK)
    from raft_agent.main import main as agent  # noqa: PLC0415  # once there is a disk, and /proc

    print("guest: the agent begins", flush=True)
    print(f"guest: the agent ended with status {agent(['--config', f'{DISK}/raft.toml'])}")


def _wait_for(place: str) -> None:
    ends = time.monotonic() + _DEVICE_S
    while not Path(place).exists():
        assert time.monotonic() < ends, f"there is no {place}"
        time.sleep(0.01)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    ctypes.CDLL(None).reboot(_POWER_OFF)
