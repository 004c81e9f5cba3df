"""Fuzzes one target with atheris, which measures what each input reaches: one process, started by
`tests/fuzz/__main__.py`. Arguments: the target's name, then libFuzzer's options."""

from __future__ import annotations

import logging
import random
import sys

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["raft_agent", "raftctl"]):
    from tests.fuzz.catalogue import TARGETS


def main() -> None:
    target = TARGETS[sys.argv[1]]
    # Each input would leave lines; what they say is the tests' business.
    logging.disable(logging.CRITICAL)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        mutated = bytes(atheris.Mutate(data, max(max_size, 1)))
        # Half of them: what is refused for its checksum is an input, too.
        if target.mend is not None and random.Random(seed).random() < 0.5:
            mutated = target.mend(mutated)
        return mutated[:max_size]

    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
