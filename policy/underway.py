"""The loads under way: what each still has to bring, and what passes beside it through the same bus, disk or network.
A new load learns from it what it will share these with, a finished one what it did share. No clock."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mesh.facts import Tier
from policy.estimate import ALONE, Estimate, estimate, load_work
from policy.haul import Haul, Lane
from policy.knobs import Knobs
from policy.rates import Rates
from policy.spot import Spot


@dataclass(slots=True)
class Underway:
    """One load. `left` is what its progress has not shown yet."""

    load: Haul
    began_s: float
    predicted: Estimate
    left: Haul
    beside: Counter[Tier]
    arrived_s: float | None = None  # all bytes


@dataclass(frozen=True, slots=True)
class Lesson:
    """A load that has ended well: what it was thought to take, and what it took."""

    spot: Spot
    farthest: Tier
    predicted: Estimate
    took_s: float


@dataclass(slots=True)
class Loads:
    """All of them. What several pass through, they share equally: one with n bytes is done when n bytes of each other,
    or all that these have, have passed too (processor sharing)."""

    by_spot: dict[Spot, Underway] = field(default_factory=dict)
    by_lane: defaultdict[Lane, set[Spot]] = field(default_factory=lambda: defaultdict(set))

    def beside(self, load: Haul, spot: Spot | None = None) -> Mapping[Tier, int]:
        """Bytes of others than `spot` that pass beside a load from now on."""
        if not self.by_lane:
            return ALONE
        sums = dict[Tier, int]()
        for lane, size in load.lanes():
            for other in self.by_lane.get(lane, ()):
                if other != spot:
                    sums[lane.tier] = sums.get(lane.tier, 0) + min(size, self.by_spot[other].left.of(lane.tier))
        return sums

    def begin(self, spot: Spot, load: Haul, now: float, rates: Rates, knobs: Knobs) -> None:
        """One begins."""
        predicted = estimate(load_work(load, knobs, self.beside(load)), rates)
        self._add(spot, load, now, predicted)

    def expect(self, spot: Spot, load: Haul) -> None:
        """One is to begin, in a decision that is still being made; `end` takes it back."""
        self._add(spot, load, 0.0, Estimate())

    def progressed(self, spot: Spot, done_bytes: int, now: float) -> None:
        """So many of its bytes have come."""
        if one := self.by_spot.get(spot):
            one.left = one.load.less(done_bytes)
            if not one.left.bytes and one.arrived_s is None:
                one.arrived_s = now

    def end(self, spot: Spot) -> None:
        """One is over before it was done, or nobody knows how: nothing is learnt. What it has not brought has passed
        beside nobody."""
        one = self.by_spot.get(spot)
        for lane, size in one.left.lanes() if one else ():
            for other in self.by_lane[lane] - {spot}:
                there = self.by_spot[other]
                there.beside[lane.tier] -= min(size, there.left.of(lane.tier))
        self._forget(spot)

    def done(self, spot: Spot, now: float, rates: Rates, knobs: Knobs) -> Lesson | None:
        """One is done: the rates learn from it. None where nobody saw it begin."""
        one = self.by_spot.get(spot)
        if one is None:
            return None
        self._forget(spot)
        took_s = now - one.began_s
        rates.saw(load_work(one.load, knobs, one.beside).portions(), took_s)
        return Lesson(spot, one.load.farthest, one.predicted, took_s)

    def rest(self, spot: Spot, now: float, rates: Rates, knobs: Knobs) -> Estimate | None:
        """Until it is ready: its bytes by its progress, then what is not bytes. None where nobody saw it begin."""
        one = self.by_spot.get(spot)
        if one is None:
            return None
        whole = estimate(load_work(one.left, knobs, self.beside(one.left, spot)), rates)
        gone_s = 0.0 if one.arrived_s is None else now - one.arrived_s
        return replace(whole, init_s=max(0.0, whole.init_s - gone_s))

    def _add(self, spot: Spot, load: Haul, began_s: float, predicted: Estimate) -> None:
        beside = Counter(self.beside(load))
        for lane, size in load.lanes():
            for other in self.by_lane.get(lane, ()):
                one = self.by_spot[other]
                one.beside[lane.tier] += min(size, one.left.of(lane.tier))
            self.by_lane[lane].add(spot)
        self.by_spot[spot] = Underway(load, began_s, predicted, load, beside)

    def _forget(self, spot: Spot) -> None:
        one = self.by_spot.pop(spot, None)
        for lane, _ in one.load.lanes() if one else ():
            self.by_lane[lane].discard(spot)
            if not self.by_lane[lane]:
                del self.by_lane[lane]
