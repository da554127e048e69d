"""A histogram off a process's Prometheus page, and percentiles out of it. Pure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.series import BenchmarkBroken


@dataclass(frozen=True, slots=True)
class Buckets:
    """How many observations are at most each bound; the last bound is infinite, and its count that of all."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]

    @classmethod
    def on(cls, page: str, name: str) -> "Buckets":
        """The histogram of that name, which has no labels. BenchmarkBroken when the page has none."""
        families = [one for one in text_string_to_metric_families(page) if one.name == name]
        samples = [s for one in families for s in one.samples if s.name == f"{name}_bucket"]
        if not samples:
            raise BenchmarkBroken(f"the page of metrics has no histogram {name}")
        found = sorted((float(sample.labels["le"]), sample.value) for sample in samples)
        return cls(tuple(bound for bound, _ in found), tuple(count for _, count in found))

    @property
    def count(self) -> int:
        """Of all observations."""
        return int(self.counts[-1])

    def since(self, before: "Buckets") -> "Buckets":
        """What has been observed since an earlier look."""
        return Buckets(self.bounds, tuple(now - then for now, then in zip(self.counts, before.counts, strict=True)))

    def percentile(self, share: float) -> float:
        """What that share of the observations is at most, read off a straight line through its bucket; infinite where
        it is above the last bound. At least one observation."""
        rank = share * self.counts[-1]
        for (low, under), (high, upto) in pairwise(self._corners()):
            if upto >= rank and upto > under:
                return high if math.isinf(high) else low + (high - low) * (rank - under) / (upto - under)
        raise BenchmarkBroken("nothing was observed")

    def _corners(self) -> Iterable[tuple[float, float]]:
        return [(0.0, 0.0), *zip(self.bounds, self.counts, strict=True)]
