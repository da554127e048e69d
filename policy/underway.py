"""The loads under way, which come one after another through each bus, disk and network: what each still has to bring,
what is before it, and whose turn it is. Two at once would both be done when the later of two in turn is. No clock."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from mesh.facts import Member, Tier
from policy.estimate import ALONE, Estimate, estimate, load_work
from policy.haul import Haul, Lane
from policy.knobs import Knobs
from policy.rates import Rates
from policy.spot import Spot

NOTHING = Estimate()
LATE = 3.0  # times its P90, after which a load is thought to be stuck, and others pass


@dataclass(slots=True)
class Underway:
    """One load. `left` is what its progress has not shown yet, `beside` what was before it."""

    load: Haul
    began_s: float
    predicted: Estimate
    left: Haul
    beside: dict[Tier, int]
    arrived_s: float | None = None  # all bytes
    late_s: float = math.inf  # once it has its turn: when it will have taken so long that others need not wait for it


@dataclass(frozen=True, slots=True)
class Lesson:
    """A load that has ended well: what it was thought to take, and what it took."""

    spot: Spot
    farthest: Tier
    predicted: Estimate
    took_s: float


@dataclass(slots=True)
class Loads:
    """All of them, in order."""

    by_spot: dict[Spot, Underway] = field(default_factory=dict)
    by_lane: defaultdict[Lane, dict[Spot, None]] = field(default_factory=lambda: defaultdict(dict))
    nodes: Counter[str] = field(default_factory=Counter, repr=False)  # of the loads

    def beside(self, load: Haul, spot: Spot | None = None) -> Mapping[Tier, int]:
        """Bytes that pass before those of a load at `spot`; without it, of one that is to come."""
        if not self.by_lane:
            return ALONE
        sums = dict[Tier, int]()
        for lane, _ in load.lanes() if load.node in self.nodes else ():
            for other in self._before(lane, spot):
                sums[lane.tier] = sums.get(lane.tier, 0) + self.by_spot[other].left.of(lane.tier)
        return sums

    def uses_bus(self, worker: Member) -> bool:
        """Whether bytes are to come to a worker from its node's memory."""
        return worker.node in self.nodes and Lane(Tier.DRAM, worker.id) in self.by_lane

    def turn_s(self, spot: Spot, now: float) -> float | None:
        """When a load need not wait any longer for those before it, though they be too slow; None: it has its turn. So
        has one that nobody saw begin."""
        late_s = max((one.late_s for one in self._blockers(spot)), default=now)
        return None if late_s <= now else late_s

    def rest_before_s(self, spot: Spot, rates: Rates, knobs: Knobs) -> float:
        """How long until it has its turn, as far as one can tell."""
        one = self.by_spot.get(spot)
        beside = self.beside(one.load, spot) if one else ALONE
        return estimate(load_work(one.load, knobs, beside), rates).io_queue_s if one else 0.0

    def take_turn(self, spot: Spot, now: float, rates: Rates, knobs: Knobs) -> None:
        """Its bytes come from now on."""
        if one := self.by_spot.get(spot):
            alone = estimate(load_work(one.load, knobs), rates)
            one.late_s = now + LATE * alone.p90_s

    def begin(self, spot: Spot, load: Haul, now: float, rates: Rates, knobs: Knobs) -> None:
        """One begins."""
        predicted = estimate(load_work(load, knobs, self.beside(load)), rates)
        self._add(spot, load, now, predicted)

    def expect(self, spot: Spot, load: Haul) -> None:
        """One is to begin, in a decision that is still being made; `end` takes it back."""
        self._add(spot, load, 0.0, NOTHING)

    def progressed(self, spot: Spot, done_bytes: int, now: float) -> None:
        """So many of its bytes have come."""
        if one := self.by_spot.get(spot):
            one.left = one.load.less(done_bytes)
            if not one.left.bytes and one.arrived_s is None:
                one.arrived_s = now

    def end(self, spot: Spot) -> None:
        """One is over before it was done, or nobody knows how: nothing is learnt. What it has not brought was before
        nobody."""
        one = self.by_spot.get(spot)
        for lane, size in one.left.lanes() if one else ():
            order = list(self.by_lane[lane])
            for other in order[order.index(spot) + 1 :]:
                self.by_spot[other].beside[lane.tier] -= size
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
        beside = dict(self.beside(load))
        for lane, _ in load.lanes():
            self.by_lane[lane][spot] = None
        if spot not in self.by_spot:
            self.nodes[load.node] += 1
        self.by_spot[spot] = Underway(load, began_s, predicted, load, beside)

    def _blockers(self, spot: Spot) -> Iterator[Underway]:
        """Loads of which bytes are still to come through what this one passes through, too."""
        one = self.by_spot.get(spot)
        for lane, _ in one.load.lanes() if one else ():
            ahead = (self.by_spot[other] for other in self._before(lane, spot))
            yield from (other for other in ahead if other.left.of(lane.tier))

    def _before(self, lane: Lane, spot: Spot | None) -> Iterator[Spot]:
        """Those of a lane that came before `spot`."""
        order = self.by_lane.get(lane, ())
        return iter(order) if spot is None else itertools.takewhile(lambda other: other != spot, order)

    def _forget(self, spot: Spot) -> None:
        one = self.by_spot.pop(spot, None)
        if one is None:
            return
        for lane, _ in one.load.lanes():
            self.by_lane[lane].pop(spot, None)
            if not self.by_lane[lane]:
                del self.by_lane[lane]
        self.nodes[one.load.node] -= 1
        if not self.nodes[one.load.node]:
            del self.nodes[one.load.node]
