"""What is remembered of a model's requests: a histogram of the pauses between them, and how fast they come.

40 bins and a day's half-life: research/scheduling.md 5.4. What is not known of a model is filled in by a prior under
which a pause grows more hopeless the longer it has lasted, so that models that nobody knows are ranked by how recently
they were asked.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

BINS = 40
SHORTEST_S, LONGEST_S = 1.0, 14_400.0  # shorter pauses lie within a burst; longer ones count as no return
RATIO = math.pow(LONGEST_S / SHORTEST_S, 1.0 / (BINS - 2))
EDGES_S = (0.0, *(SHORTEST_S * math.pow(RATIO, n) for n in range(BINS - 1)))  # where each bin begins
HALF_LIFE_S = 86_400.0
FORGET_S = HALF_LIFE_S / 1000.0  # at least so long between two times of forgetting
PRIOR = 2.0  # pauses that every model has had before its first, spread evenly over the bins
BASE_S, BURST_S = 3600.0, 30.0  # time constants of the two rates


def bin_of(pause_s: float) -> int:
    """The bin that a pause lies in."""
    return bisect_right(EDGES_S, pause_s) - 1


@dataclass(slots=True)
class Rate:
    """Requests that fade away exponentially: their weight over the time in which they would have counted."""

    fade_s: float
    since_s: float
    weight: float = 0.0
    at_s: float = 0.0  # the moment that the weight is of

    def asked(self, now: float) -> None:
        """One more."""
        self.weight, self.at_s = self.faded(now) + 1.0, now

    def faded(self, now: float) -> float:
        """How many count now."""
        return self.weight * math.exp((self.at_s - now) / self.fade_s)

    def per_s(self, now: float) -> float:
        """Requests a second."""
        seen_s = max(1.0, now - self.since_s)
        return self.faded(now) / (self.fade_s * -math.expm1(-seen_s / self.fade_s))


@dataclass(eq=False, slots=True)
class History:
    """Of one model."""

    last_s: float
    base: Rate
    burst: Rate
    forgot_s: float  # the moment that the weights are of
    weights: list[float] = field(default_factory=lambda: [0.0] * BINS)
    _tails: Sequence[float] | None = None  # until somebody asks

    @classmethod
    def begun(cls, now: float) -> "History":
        """With a first request."""
        history = cls(now, Rate(BASE_S, now), Rate(BURST_S, now), now)
        history.base.asked(now)
        history.burst.asked(now)
        return history

    @property
    def tails(self) -> Sequence[float]:
        """At each bin, the weight of pauses of at least EDGES_S[bin], the prior's included."""
        if self._tails is None:
            self._tails = tails(self.weights)
        return self._tails

    def asked(self, now: float) -> None:
        """Another request has come."""
        if now - self.forgot_s >= FORGET_S:
            self.forget(now - self.forgot_s)
            self.forgot_s = now
        self.weights[bin_of(now - self.last_s)] += 1.0
        self._tails = None
        self.last_s = now
        self.base.asked(now)
        self.burst.asked(now)

    def forget(self, passed_s: float) -> None:
        """So much time has passed."""
        kept = math.pow(0.5, passed_s / HALF_LIFE_S)
        self.weights = [weight * kept for weight in self.weights]
        self._tails = None

    def longer(self, pause_s: float) -> float:
        """The weight of pauses longer than this one. Within a bin they are spread evenly."""
        here = bin_of(pause_s)
        if here == BINS - 1:
            return self.tails[here]
        share = (pause_s - EDGES_S[here]) / (EDGES_S[here + 1] - EDGES_S[here])
        return self.tails[here] - share * (self.tails[here] - self.tails[here + 1])


def tails(weights: Sequence[float]) -> Sequence[float]:
    """Of each bin: what lies in it and beyond, with the prior's share."""
    return list(accumulate(weight + PRIOR / BINS for weight in reversed(weights)))[::-1]
