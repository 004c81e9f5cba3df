"""What transactions and leases need of the keys: the machine, seen from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from raft_agent.machine.entry import Entry

if TYPE_CHECKING:
    from raft_agent.machine.exports import Exports
    from raft_agent.machine.leases import Leases


class Listing(Protocol):
    """Something with keys that can be read in their order."""

    def list(
        self, prefix: str = "", limit: int = 1000, after: str = "", *, max_bytes: int = 1 << 62
    ) -> tuple[list[Entry], bool]: ...


class Store(Listing, Protocol):
    """`revision` is the store's, `time_ms` the log's time; `floor`: ids that are given out lie
    behind it."""

    @property
    def revision(self) -> int: ...

    @property
    def time_ms(self) -> int: ...

    @property
    def floor(self) -> int: ...

    @property
    def leases(self) -> Leases: ...

    @property
    def exports(self) -> Exports: ...

    def get(self, key: str) -> Entry | None: ...

    def change(
        self, key: str, value: bytes | None, *, revision: int, index: int, lease: int
    ) -> None:
        """Put a key, or delete one that is there (None), at `revision`: the store's, or the next
        one, which becomes the store's. `lease`: the one that the key ends with from now on, or has
        just ended with; 0: none."""
