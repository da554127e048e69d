"""One thing measured again and again, and how two such things compare. Pure."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


class BenchmarkBroken(Exception):
    """What was to be compared could not be measured; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Series:
    """One value a round, in the order of the rounds; at least one."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> "Series":
        """Raises BenchmarkBroken when there are none."""
        series = cls(tuple(values))
        if not series.values:
            raise BenchmarkBroken("nothing was measured; run at least one round")
        return series

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The least."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The greatest."""
        return max(self.values)

    def over(self, other: "Series") -> "Series":
        """The ratio of each round to the other's same round, which saw the same machine."""
        return Series.of(mine / theirs for mine, theirs in zip(self.values, other.values, strict=True))

    def text(self, unit: str, digits: int = 3) -> str:
        """Such as "0.41 s (0.39–0.52)"."""
        shown = [f"{value:.{digits}g}" if value < 1000 else f"{value:.0f}" for value in self._shown]
        return f"{shown[0]}{' ' if unit else ''}{unit} ({shown[1]}–{shown[2]})"

    @property
    def _shown(self) -> tuple[float, float, float]:
        return self.median, self.low, self.high
