"""What strikes when: made from a seed and from nothing else."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

# A calm between two rounds lets everybody catch up, and shows how long that takes.
CALM_S = (1.0, 3.0)
_SHORTEST_S = 0.1
_RESTS = 0.7
_LONGEST_S = 10.0


@dataclass(frozen=True)
class Blow:
    """One strike of a round: `after_s` its begin, for `lasts_s`, with chance from `seed`."""

    kind: str
    after_s: float
    lasts_s: float
    seed: int


@dataclass(frozen=True)
class Round:
    """Strikes that overlap; all have ended when it is over, and then it is calm for a while.
    `rests`: the next round waits until everybody is well again."""

    blows: tuple[Blow, ...]
    calm_s: float
    rests: bool

    @property
    def lasts_s(self) -> float:
        return max(blow.after_s + blow.lasts_s for blow in self.blows)


class Plan:
    """An endless sequence of rounds of one to `most` strikes, of kinds by their weights."""

    def __init__(self, seed: int, weights: Mapping[str, int], most: int = 3) -> None:
        self._chance = random.Random(f"{seed}/plan")
        self._weights = dict(weights)
        self._most = most

    def __iter__(self) -> Plan:
        return self

    def __next__(self) -> Round:
        chance = self._chance
        # Half of the rounds have one strike alone: they show how soon it is over.
        count = 1 if chance.random() < 0.5 else chance.randint(1, self._most)
        kinds = chance.choices(list(self._weights), list(self._weights.values()), k=count)
        blows = tuple(
            Blow(kind, 0.0 if not place else chance.uniform(0, 3), _duration(chance), seed)
            for place, (kind, seed) in enumerate(
                zip(kinds, (chance.randrange(1 << 30) for _ in kinds), strict=True)
            )
        )
        return Round(blows, chance.uniform(*CALM_S), rests=chance.random() < _RESTS)


def _duration(chance: random.Random) -> float:
    """Short ones as often as long ones, between a tenth of a second and ten."""
    return float(_SHORTEST_S * (_LONGEST_S / _SHORTEST_S) ** chance.random())
