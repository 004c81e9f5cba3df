"""All that can go wrong, by name."""

from __future__ import annotations

from tests.torture.strikes import disks, links, machines, members, processes
from tests.torture.strikes.base import NotNow, Strike

__all__ = ["KINDS", "WEIGHTS", "NotNow", "Strike"]

# How often each is chosen, in proportion.
WEIGHTS: dict[type[Strike], int] = {
    processes.Kill: 6,
    processes.KillLeader: 6,
    processes.Stop: 6,
    processes.Blink: 2,
    processes.Transfer: 3,
    processes.Restart: 2,
    processes.FewFiles: 2,
    processes.LittleMemory: 1,
    links.Partition: 10,
    links.Stranded: 3,
    links.Loss: 3,
    links.Flaky: 2,
    disks.PowerFailure: 6,
    disks.ElectionPower: 2,
    disks.FailedSync: 3,
    disks.FullDisk: 3,
    disks.SlowDisk: 3,
    disks.TurnedBits: 3,
    disks.LostDisk: 1,
    members.Join: 3,
    members.Leave: 3,
    members.Replace: 2,
    members.Move: 2,
    members.Backup: 1,
    machines.WallClock: 3,
    machines.Rotation: 2,
    machines.Detach: 2,
}
KINDS = {strike.kind: strike for strike in WEIGHTS}
