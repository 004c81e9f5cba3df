"""What a load generator counts, cheap enough for its hot path."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

# Two linear scales: 1 us wide buckets up to 65 ms, then 1,024 us wide ones (under 1.6 % of the
# value) up to 268 s. An index is one multiplication away, unlike with logarithms.
FINE_BUCKETS = 1 << 16
COARSE_SHIFT = 10
COARSE_BUCKETS = 1 << 18


class Latencies:
    """A histogram of latencies in seconds."""

    def __init__(self) -> None:
        self.fine = array("Q", bytes(8 * FINE_BUCKETS))
        self.coarse = array("Q", bytes(8 * COARSE_BUCKETS))

    def record(self, seconds: float) -> None:
        micros = int(seconds * 1e6)
        if micros < FINE_BUCKETS:
            self.fine[micros] += 1
        else:
            self.coarse[min(micros >> COARSE_SHIFT, COARSE_BUCKETS - 1)] += 1

    def merge(self, other: Latencies) -> None:
        for mine, theirs in ((self.fine, other.fine), (self.coarse, other.coarse)):
            for bucket, count in enumerate(theirs):
                if count:
                    mine[bucket] += count

    @property
    def count(self) -> int:
        return sum(self.fine) + sum(self.coarse)

    def buckets(self) -> list[tuple[float, int]]:
        """(the bucket's middle in milliseconds, count), rising, without the empty ones."""
        fine = [((i + 0.5) / 1000, n) for i, n in enumerate(self.fine) if n]
        width_ms = (1 << COARSE_SHIFT) / 1000
        return fine + [((i + 0.5) * width_ms, n) for i, n in enumerate(self.coarse) if n]

    def percentiles_ms(self, fractions: tuple[float, ...]) -> list[float | None]:
        """For each fraction (rising) the latency that this share of the samples did not exceed;
        None without samples.
        """
        buckets = self.buckets()
        total = sum(count for _ms, count in buckets)
        if not total:
            return [None] * len(fractions)
        found: list[float | None] = []
        seen = 0
        place = iter(buckets)
        latency_ms = 0.0
        for fraction in fractions:
            while seen < fraction * total:
                latency_ms, count = next(place)
                seen += count
            found.append(round(latency_ms, 4))
        return found

    def mean_ms(self) -> float | None:
        buckets = self.buckets()
        total = sum(count for _ms, count in buckets)
        return round(sum(ms * n for ms, n in buckets) / total, 4) if total else None


@dataclass
class Tally:
    """One process's result. `latencies` and `ops` are of the measured time only; `errors` (by code)
    and `unknown` of the whole run, because an error in the warm-up is one too. `unsent`: with a
    rate, the requests that were due and for which there never was a free slot.
    """

    latencies: Latencies = field(default_factory=Latencies)
    errors: dict[str, int] = field(default_factory=dict)
    unknown: int = 0
    window_s: float = 0.0
    cpu_s: float = 0.0
    interrupted: bool = False
    unsent: int = 0

    def merge(self, other: Tally) -> None:
        self.latencies.merge(other.latencies)
        for code, count in other.errors.items():
            self.errors[code] = self.errors.get(code, 0) + count
        self.unknown += other.unknown
        self.window_s = max(self.window_s, other.window_s)
        self.cpu_s += other.cpu_s
        self.unsent += other.unsent
        self.interrupted = self.interrupted or other.interrupted

    def encode(self) -> bytes:
        """For the way between processes; `decode` is its inverse."""
        import msgspec  # noqa: PLC0415

        return msgspec.msgpack.encode(
            (
                self.latencies.fine.tobytes(),
                self.latencies.coarse.tobytes(),
                self.errors,
                self.unknown,
                self.window_s,
                self.cpu_s,
                self.interrupted,
                self.unsent,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Tally:
        import msgspec  # noqa: PLC0415

        fine, coarse, errors, unknown, window_s, cpu_s, interrupted, unsent = (
            msgspec.msgpack.decode(
                data, type=tuple[bytes, bytes, dict[str, int], int, float, float, bool, int]
            )
        )
        latencies = Latencies()
        latencies.fine = array("Q", fine)
        latencies.coarse = array("Q", coarse)
        return cls(latencies, errors, unknown, window_s, cpu_s, interrupted, unsent)
