"""All fuzz targets by name: one for each parser that reads bytes from elsewhere."""

from __future__ import annotations

from tests.fuzz.target import Target
from tests.fuzz.targets import (
    clients,
    command_line,
    frames,
    http,
    kernel,
    machine,
    settings,
    storage,
    tls,
)

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (frames, clients, storage, machine, settings, command_line, kernel, http, tls)
    for target in module.TARGETS
}
