"""What runs on a worker that is to become empty: it goes on elsewhere, unless it is sooner done where it is."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from policy.actions import LoadReason, Move, MoveReason
from policy.candidates import candidates
from policy.draft import Draft
from policy.knobs import Knobs
from policy.relocation import has_room, move, rests, route, transfer
from policy.scaling import is_full, make
from policy.spot import Spot
from policy.view import Running, Seat, View
from policy.waits import LEAST_SHARE, left_s

LEAST_S = 0.1  # between two looks at a request that has outlived what was expected of it


@dataclass(frozen=True, slots=True)
class Leaver:
    """A request on a worker that is to become empty, and how long it is thought to run yet."""

    seat: Seat
    one: Running
    left_s: float


@dataclass(frozen=True, slots=True)
class Clearing:
    """Of one moment."""

    view: View
    now: float
    knobs: Knobs

    def leavers(self, worker_id: str) -> list[Leaver]:
        """All that a worker may send, who has most left first."""
        view, seats = self.view, filter(self.view.settled, self.view.replicas.on(worker_id))
        runs = ((seat, one) for seat in seats for one in view.running(seat.spot) if not one.stays)
        found = [Leaver(seat, one, self._left_s(seat, one)) for seat, one in runs]
        return sorted(found, key=lambda leaver: (-leaver.left_s, leaver.one.request_id))

    def goals(self, leavers: Iterable[Leaver]) -> dict[Spot, Seat]:
        """Of each replica that they are on, where one of them could go now."""
        seats = {leaver.seat.spot: leaver.seat for leaver in leavers}
        return {spot: goal for spot, seat in seats.items() if (goal := self._goal(seat))}

    def next(self, leavers: Iterable[Leaver], goals: Mapping[Spot, Seat]) -> list[Move]:
        """The first that goes now; none where nobody can, or all are sooner done."""
        view, now, knobs = self.view, self.now, self.knobs
        for leaver in leavers:
            goal = goals.get(leaver.seat.spot)
            if goal and not rests(leaver.one, now, knobs) and self.pays(leaver, self._takes_s(leaver, goal)):
                return [move(view, leaver.seat, goal.spot, leaver.one, MoveReason.DRAIN, now=now, knobs=knobs)]
        return []

    def again_s(self, leaver: Leaver, goals: Mapping[Spot, Seat]) -> float:
        """When to look at one that stays: once it has rested, or has run for so long that it will for longer yet."""
        if rests(leaver.one, self.now, self.knobs):
            return (leaver.one.moved_s or 0.0) + self.knobs.move_rest_s
        goal = goals.get(leaver.seat.spot)
        takes_s = self._takes_s(leaver, goal) if goal else math.inf
        pays_s = takes_s / (LEAST_SHARE * (1 - self.knobs.move_wins_share))
        return max(self.now + LEAST_S, leaver.one.placed_s + pays_s)

    def pays(self, leaver: Leaver, takes_s: float) -> bool:
        """Whether a request is clearly sooner gone than done."""
        return takes_s < (1 - self.knobs.move_wins_share) * leaver.left_s

    def lacks_room(self, leavers: list[Leaver]) -> bool:
        """Whether the replicas of a version, those on their way included, have too few slots for all who leave it."""
        seat, view = leavers[0].seat, self.view
        open_ = sum(max(0, one.slots - view.crowd(one)) for one in self._others(seat))
        coming = [spot for spot in view.replicas.loads_of(seat.spot.model) if spot.digest == seat.spot.digest]
        return len(leavers) > open_ + view.index.sizes().least_slots * len(coming)

    def _left_s(self, seat: Seat, one: Running) -> float:
        """One that has outlived the average by far goes on the longer for it."""
        expected_s = left_s(self.view.rates, seat.spot.model, one, self.now, self.knobs)
        return max(expected_s, LEAST_SHARE * (self.now - one.placed_s))

    def _takes_s(self, leaver: Leaver, goal: Seat) -> float:
        way = transfer(self.view, route(self.view, leaver.seat, goal.spot), leaver.one, self.now, self.knobs)
        return way.took_s + way.gap_s

    def _goal(self, seat: Seat) -> Seat | None:
        able = (one for one in self._others(seat) if has_room(self.view, one, self.now))
        return min(able, key=lambda one: (self.view.crowd(one), one.spot), default=None)

    def _others(self, seat: Seat) -> list[Seat]:
        """Replicas of the same version that stay."""
        view, digest = self.view, seat.spot.digest
        others = [one for one in view.seats(seat.spot.model) if one.spot.digest == digest and view.settled(one)]
        return [one for one in others if not view.cluster.is_draining(one.member)]


def clear(draft: Draft, now: float, knobs: Knobs) -> list[float]:
    """Each such worker sends one request at a time; where its model has no slot for it, a replica is loaded, if that
    pays. Returns when others may go: the end of a move is looked at in any case."""
    view, moments = draft.view, list[float]()
    if not knobs.moves or not view.index.draining():
        return moments
    clearing = Clearing(view, now, knobs)
    leavers = {worker_id: clearing.leavers(worker_id) for worker_id in view.index.draining()}
    for worker_id in [one for one in sorted(leavers) if one not in view.moving.workers()]:
        goals = clearing.goals(leavers[worker_id])
        draft.take(going := clearing.next(leavers[worker_id], goals))
        moments += [] if going else [clearing.again_s(one, goals) for one in leavers[worker_id]]
    stay = [one for each in leavers.values() for one in each if one.one.request_id not in view.moving.goals]
    _make_room(draft, clearing, stay)
    return [*moments, *view.distrusted_until_s.values()] if stay else moments


def _make_room(draft: Draft, clearing: Clearing, leavers: Iterable[Leaver]) -> None:
    """Another replica of each version that has too few slots for those who leave it, where the last of them would be
    there sooner than done."""
    view, now, knobs = clearing.view, clearing.now, clearing.knobs
    of: dict[Spot, list[Leaver]] = {}
    for leaver in sorted(leavers, key=lambda one: (-one.left_s, one.one.request_id)):
        of.setdefault(leaver.seat.spot._replace(worker_id=""), []).append(leaver)
    for version, each in of.items():
        entry = view.cluster.models.get(version.model)
        if entry is None or entry.checkpoint.digest != version.digest or is_full(view, entry):
            continue
        if view.is_unfit(version.digest, now) or view.is_claimed(entry) or not clearing.lacks_room(each):
            continue
        load_s = min((one.estimate_s for one in candidates(view, entry, now, knobs)), default=math.inf)
        if clearing.pays(each[0], load_s):
            make(draft, entry, LoadReason.MOVE, now, knobs)
