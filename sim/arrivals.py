"""When requests come: renewal processes of any burstiness, and how rates change from window to window."""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DAY_S = 86_400.0


class Law(StrEnum):
    """Of the gaps between requests."""

    GAMMA = "gamma"
    WEIBULL = "weibull"


@dataclass(frozen=True, slots=True)
class Gaps:
    """Gaps of mean 1. `cv` is their standard deviation over their mean: 1 is Poisson; at 8, the evaluations' wildest,
    85 % of gaps are below a thousandth of the mean."""

    law: Law
    cv: float

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """`count` of them."""
        if self.law is Law.GAMMA:
            return rng.gamma(1.0 / self.cv**2, self.cv**2, count)
        shape = weibull_shape(self.cv)
        return rng.weibull(shape, count) / math.gamma(1.0 + 1.0 / shape)

    def residual(self, rng: np.random.Generator) -> float:
        """From a random moment to the next request: a share of a gap that is met by its length."""
        if self.law is Law.GAMMA:
            met = rng.gamma(1.0 / self.cv**2 + 1.0, self.cv**2)
        else:
            shape = weibull_shape(self.cv)
            met = rng.gamma(1.0 + 1.0 / shape) ** (1.0 / shape) / math.gamma(1.0 + 1.0 / shape)
        return float(rng.random() * met)


def weibull_shape(cv: float) -> float:
    """The shape whose gaps have this cv, by bisection of cv^2 = G(1 + 2/c) / G(1 + 1/c)^2 - 1."""
    low, high = 0.1, 50.0
    for _ in range(80):
        middle = math.sqrt(low * high)
        spread = math.lgamma(1.0 + 2.0 / middle) - 2.0 * math.lgamma(1.0 + 1.0 / middle)
        low, high = (middle, high) if math.expm1(spread) > cv**2 else (low, middle)
    return middle


def arrivals(rng: np.random.Generator, gaps: Gaps, rates: Floats, window_s: float) -> Floats:
    """Times in [0, len(rates) * window_s) of a renewal process whose rate is rates[i] a second in window i.

    Gaps are drawn in operational time, the integral of the rate, so what is left of a gap carries over into the next
    window, and a rate of 0 is a pause.
    """
    ends = np.concatenate([[0.0], np.cumsum(rates * window_s)])
    total = float(ends[-1])
    if total <= 0.0:
        return np.empty(0)
    at = gaps.residual(rng)  # the process was under way before
    batches = [np.array([at])]
    while at < total:
        more = at + np.cumsum(gaps.draw(rng, max(64, math.ceil(1.2 * (total - at)))))
        batches.append(more)
        at = float(more[-1])
    marks = np.concatenate(batches)
    marks = marks[marks < total]
    window = np.clip(np.searchsorted(ends, marks, "right") - 1, 0, len(rates) - 1)
    times: Floats = window * window_s + (marks - ends[window]) / rates[window]
    return times


POISSON = Gaps(Law.GAMMA, 1.0)


@dataclass(frozen=True, slots=True)
class Swings:
    """How a model's rate moves around its mean from window to window."""

    window_s: float = 600.0
    diurnal: float = 0.0  # amplitude of a day's cosine, its peak in the middle of the day
    log_cv: float = 0.0  # of a log-normal factor that remembers the last window
    memory: float = 0.7  # its correlation from window to window; assumed
    on_share: float = 1.0  # of windows in which anybody asks at all
    on_windows: float = 3.0  # mean length of such a spell; assumed

    def factors(self, rng: np.random.Generator, windows: int) -> Floats:
        """For each window, of mean about 1 in the long run, but for the spells."""
        middle_s = (np.arange(windows) + 0.5) * self.window_s
        day = 1.0 + self.diurnal * np.cos(2.0 * np.pi * (middle_s / DAY_S - 0.5))
        factors: Floats = day * self._drift(rng, windows)
        return factors

    def _drift(self, rng: np.random.Generator, windows: int) -> Floats:
        if self.log_cv == 0.0:
            return np.ones(windows)
        variance = math.log1p(self.log_cv**2)
        fresh = rng.standard_normal(windows)
        drift, kept = np.empty(windows), math.sqrt(1.0 - self.memory**2)
        last = fresh[0]
        for i in range(windows):
            last = fresh[0] if i == 0 else self.memory * last + kept * fresh[i]
            drift[i] = last
        return np.exp(math.sqrt(variance) * drift - variance / 2.0)

    def spells(self, rng: np.random.Generator, windows: int) -> Floats:
        """For each window 0 where nobody asks, else what makes up for those in which nobody does."""
        if self.on_share >= 1.0:
            return np.ones(windows)
        leave = 1.0 / self.on_windows
        come = leave * self.on_share / (1.0 - self.on_share)
        on, present = bool(rng.random() < self.on_share), np.empty(windows)
        for i in range(windows):
            present[i] = on / self.on_share
            on = bool(rng.random() >= leave) if on else bool(rng.random() < come)
        return present


STEADY = Swings()
