"""Which replicas make way on a worker: a 0/1 knapsack over the memory that is needed. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from policy.actions import Load
from policy.spot import Spot
from policy.transfer import Transfer


@dataclass(frozen=True, slots=True)
class Victim:
    """A replica that could go: the bytes that this frees, after `delay_s`, and what else it costs, in seconds. What
    runs there goes on at `goal`, for which `load` may have to be done; an idle one has neither."""

    source: Spot
    bytes: int
    delay_s: float
    cost_s: float
    goal: Spot | None = None
    load: Load | None = None
    transfers: tuple[Transfer, ...] = ()  # of what runs there


@dataclass(frozen=True, slots=True)
class Sacrifice:
    """Victims that free enough; the slowest of them decides when."""

    victims: tuple[Victim, ...]
    bytes: int
    cost_s: float

    @property
    def delay_s(self) -> float:
        """Until all of them have gone."""
        return max((victim.delay_s for victim in self.victims), default=0.0)

    def and_(self, victim: Victim) -> "Sacrifice":
        """One more."""
        return Sacrifice((*self.victims, victim), self.bytes + victim.bytes, self.cost_s + victim.cost_s)


def cheapest(victims: Sequence[Victim], wanted_bytes: int) -> Sacrifice | None:
    """Of all sets that free `wanted_bytes`, the one with the least delay and costs together; None if all are too few.

    For each delay that can be the longest, the cheapest set within it: the frontier of bytes and costs is extended by
    one victim at a time, so what grows is the frontier and not the number of sets.
    """
    found: list[Sacrifice] = []
    quickest_first = sorted(victims, key=lambda victim: victim.delay_s)
    frontier: list[Sacrifice] = [Sacrifice((), 0, 0.0)]
    for victim in quickest_first:
        frontier = _undominated([*frontier, *(choice.and_(victim) for choice in frontier)], wanted_bytes)
        found += [choice for choice in frontier if choice.bytes >= wanted_bytes]
    return min(found, key=lambda choice: (choice.delay_s + choice.cost_s, len(choice.victims)), default=None)


def _undominated(choices: list[Sacrifice], wanted_bytes: int) -> list[Sacrifice]:
    """Without those that free no more than a cheaper one; beyond what is wanted, bytes count for nothing."""
    kept: list[Sacrifice] = []
    for choice in sorted(choices, key=lambda one: (one.cost_s, -min(one.bytes, wanted_bytes), len(one.victims))):
        if not kept or min(choice.bytes, wanted_bytes) > min(kept[-1].bytes, wanted_bytes):
            kept.append(choice)
    return kept
