"""Workers that make way for a model: what runs there goes on elsewhere. Kept by Books; decide only reads it."""

from dataclasses import dataclass, field
from typing import NamedTuple

from policy.reasons import MoveReason
from policy.spot import Spot
from policy.timeline import Timeline


class Leg(NamedTuple):
    """What runs on one replica is to go on at another of the same model."""

    source: Spot
    goal: Spot


@dataclass(frozen=True, slots=True)
class Evacuation:
    """A worker makes way for the replica `spot`: nothing new goes to the sources of its legs once their goals answer,
    and what runs there moves. Then the sources are as idle as any, and the load finds its room."""

    spot: Spot
    legs: tuple[Leg, ...]
    estimate_s: float  # of the load
    until_s: float  # it is given up then
    reason: MoveReason = MoveReason.LOCALITY

    @property
    def workers(self) -> frozenset[str]:
        """All that take part."""
        return frozenset((self.spot.worker_id, *(leg.goal.worker_id for leg in self.legs)))


@dataclass(slots=True)
class Moving:
    """Whoever carries decisions out says which were begun; the books drop what facts have overtaken."""

    evacuations: tuple[Evacuation, ...] = ()
    goals: dict[str, Spot] = field(default_factory=dict)  # by request: where it was asked to go, and is not yet
    sources: dict[str, Spot] = field(default_factory=dict)  # and where it is
    since: Timeline[str] = field(default_factory=Timeline)  # when requests that run were asked to move last, or did

    def add(self, evacuation: Evacuation) -> None:
        """It has been decided on."""
        self.evacuations = (*self.evacuations, evacuation)

    def drop(self, evacuation: Evacuation) -> None:
        """It is over."""
        self.evacuations = tuple(one for one in self.evacuations if one != evacuation)

    def begin(self, request_id: str, source: Spot, goal: Spot) -> None:
        """A request is on its way."""
        self.sources[request_id], self.goals[request_id] = source, goal

    def end(self, request_id: str) -> Spot | None:
        """It is there, or stays. Returns where it was to go; None if nowhere."""
        self.sources.pop(request_id, None)
        return self.goals.pop(request_id, None)

    def leaves(self, spot: Spot) -> bool:
        """Whether what runs on a replica makes way."""
        return any(leg.source == spot for plan in self.evacuations for leg in plan.legs)

    def workers(self) -> set[str]:
        """Those that a request is on its way from or to: each has one at a time."""
        return {spot.worker_id for spots in (self.sources, self.goals) for spot in spots.values()}
