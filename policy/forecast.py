"""What will be asked, as far as the past tells, and how much that is to be believed. Pure."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from policy.history import BINS, EDGES_S, History

REPRESENTATIVE = 4.0  # pauses outside bursts, at least, before anything is expected from them
OPENS, CLOSES = 0.05, 0.99  # quantiles: Shahrad et al., Serverless in the Wild (ATC 2020)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected, and its standard deviation: how little is known of it."""

    mean: float
    spread: float

    @property
    def surely(self) -> float:
        """What one may count on: the mean, less its spread."""
        return max(0.0, self.mean - self.spread)


NOTHING = Forecast(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Window:
    """Pauses, in seconds, between which the next request is to be expected."""

    opens_s: float
    closes_s: float


def returns(history: History | None, pause_s: float, until_s: float, from_s: float | None = None) -> Forecast:
    """The chance that a pause which has lasted `pause_s` ends between `from_s` (unless told: now) and `until_s`, all of
    them lengths of the pause. Mean and deviation of the beta distribution whose counts are the pauses seen, and the
    prior's."""
    left = history.longer(pause_s) if history else 0.0
    if history is None or left <= 0.0:
        return NOTHING
    early = left if from_s is None else history.longer(from_s)
    mean = (early - history.longer(until_s)) / left
    return Forecast(mean, math.sqrt(mean * (1.0 - mean) / (left + 1.0)))


def coming(history: History | None, now: float, within_s: float) -> Forecast:
    """How many requests come within so many seconds: those that always come, and those of a burst under way, each
    Poisson at a rate that is known as well as the requests seen tell it."""
    if history is None:
        return NOTHING
    base = history.base.per_s(now) * within_s
    burst = max(0.0, history.burst.per_s(now) * within_s - base)
    variance = base + base * base / history.base.faded(now) + burst + burst * burst / history.burst.faded(now)
    return Forecast(base + burst, math.sqrt(variance))


def window(history: History) -> Window | None:
    """When the next request is to be expected; None when too little is known. Pauses within bursts do not count: a
    model in a burst is there."""
    sums = list(accumulate(history.weights[1:]))
    if sums[-1] < REPRESENTATIVE:
        return None
    first, last = _bin(sums, OPENS), _bin(sums, CLOSES)
    return Window(EDGES_S[first], EDGES_S[min(last + 1, BINS - 1)])


def _bin(sums: Sequence[float], quantile: float) -> int:
    return bisect_left(sums, quantile * sums[-1]) + 1
