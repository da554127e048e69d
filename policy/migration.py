"""Ways to move running requests from a worker where a version would start much sooner, or find memory at all: who goes,
where to, and what that takes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mesh.facts import ModelEntry
from policy.actions import Load, LoadReason, MoveReason
from policy.candidates import Candidate, candidates, candidates_of, load, sooner_near_candidates
from policy.knobs import Knobs
from policy.offers import Offers
from policy.patience import Patience
from policy.relocation import rests, route, transfer
from policy.room import free_bytes, missing_bytes
from policy.size import need_bytes
from policy.spares import spare_workers
from policy.spot import Spot
from policy.transfer import BURNT, Transfer
from policy.victims import Sacrifice, Victim, cheapest
from policy.view import Running, Seat, View


@dataclass(frozen=True, slots=True)
class Goal:
    """Where what runs on a replica can go on, after so long."""

    spot: Spot
    ready_s: float = 0.0
    load: Load | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """A worker where a version would start, and who makes way for it there."""

    candidate: Candidate
    choice: Sacrifice
    reason: MoveReason = MoveReason.LOCALITY

    def score_s(self, knobs: Knobs) -> float:
        """Until the version answers there, and what others pay for it."""
        return self.choice.delay_s + knobs.unload_s + self.candidate.estimate_s + self.choice.cost_s


def ways(view: View, entry: ModelEntry, now: float, knobs: Knobs) -> list[Way]:
    """Every worker where others could make way for a version, whether or not that pays."""
    there = users(Patience(view, now, knobs, Offers(view, entry, knobs)), entry, math.inf, spares=True)
    return [way for one in there if (way := way_at(view, entry, one, now, knobs))]


def users(patience: Patience, entry: ModelEntry, most_s: float, *, spares: bool) -> list[Candidate]:
    """Workers whose memory others use, and that take part in no plan, where the version would be ready clearly sooner
    than in `most_s`: near its bytes, and where a few requests are on a replica that they do not need."""
    view, now, before_s = patience.view, patience.now, latest_s(most_s, patience.knobs)
    found = sooner_near_candidates(view, entry, now, patience.offers, before_s)
    if spares and view.surplus_since_s:
        names = {one.member.id for one in found}
        others = (name for name in spare_workers(view) if name not in names)
        able = candidates_of(view, entry, others, now, patience.knobs)
        found += [one for one in able if one.estimate_s < before_s]
    engaged = _engaged(view)
    return [one for one in found if one.member.id not in engaged]


def latest_s(other_s: float, knobs: Knobs) -> float:
    """What is sooner than that clearly wins over a start in `other_s`."""
    return other_s - max(knobs.move_wins_s, knobs.move_wins_share * other_s) if other_s < math.inf else other_s


def _engaged(view: View) -> set[str]:
    """Workers that take part in a plan."""
    return {worker_id for plan in view.moving.evacuations for worker_id in plan.workers}


def way_at(view: View, entry: ModelEntry, candidate: Candidate, now: float, knobs: Knobs) -> Way | None:
    """Replicas of a worker that are to go, with some that are in use: what idle ones alone can do needs no moves."""
    choice = cheapest(list(_victims(view, candidate, now, knobs)), missing_bytes(view, entry, candidate))
    if choice is None or not any(victim.goal for victim in choice.victims):
        return None
    is_near = candidate.member.node in view.index.sources.nodes(entry.checkpoint.digest)
    return Way(candidate, choice, MoveReason.LOCALITY if is_near else MoveReason.DEFRAGMENT)


def _victims(view: View, candidate: Candidate, now: float, knobs: Knobs) -> Iterable[Victim]:
    taken = _engaged(view) | {candidate.member.id}
    seats = view.replicas.on(candidate.member.id)
    for seat in sorted(seats, key=lambda seat: (view.busy(seat), seat.spot)):
        if view.idle(seat):
            yield Victim(seat.spot, seat.replica.bytes, 0.0, 0.0)
        elif (running := _movable(view, seat, now, knobs)) and (goal := _goal(view, seat, taken, now, knobs)):
            taken.add(goal.spot.worker_id)
            way = route(view, seat, goal.spot)
            yield _victim(seat, goal, [transfer(view, way, one, now, knobs) for one in running])


def _movable(view: View, seat: Seat, now: float, knobs: Knobs) -> tuple[Running, ...]:
    """All that runs on a replica; nothing where not all of it can go, or others stand on its weights."""
    running = tuple(view.running(seat.spot))
    alone = not seat.replica.base and not view.adapters(seat)
    rested = all(not rests(one, now, knobs) for one in running)
    return running if alone and rested and view.settled(seat) and view.busy(seat) == len(running) else ()


def _goal(view: View, seat: Seat, taken: set[str], now: float, knobs: Knobs) -> Goal | None:
    """A replica that has slots for all of them, else the free memory where one is loaded soonest."""
    entry = view.cluster.models.get(seat.replica.model)
    if entry is None or entry.checkpoint.digest != seat.replica.digest:
        return None
    others = [one for one in view.seats(entry.name) if one.replica.digest == seat.replica.digest]
    others = [one for one in others if one.member.id not in taken and view.settled(one)]
    others = [one for one in others if not view.cluster.is_draining(one.member)]
    roomy = [one for one in others if one.slots - view.crowd(one) >= view.busy(seat)]
    if roomy:
        return Goal(min(roomy, key=lambda one: (view.crowd(one), one.spot)).spot)
    able = [c for c in candidates(view, entry, now, knobs) if c.member.id not in taken]
    free = [c for c in able if free_bytes(view, c) >= need_bytes(view.index, entry, c.member, c.worker)]
    best = min(free, key=lambda c: (c.estimate_s, c.member.id), default=None)
    if best is None:
        return None
    made = replace(load(view, entry, best), reason=LoadReason.MOVE)
    return Goal(made.spot, best.estimate_s, made)


def _victim(seat: Seat, goal: Goal, transfers: list[Transfer]) -> Victim:
    """Requests follow one another, and run on meanwhile; then each stands still for what it has gained by then."""
    gaps_s = sum(each.gap_s for each in transfers)
    delay_s = goal.ready_s + sum(each.took_s for each in transfers) + gaps_s
    cost_s = gaps_s + BURNT * delay_s
    return Victim(seat.spot, seat.replica.bytes, delay_s, cost_s, goal.spot, goal.load, tuple(transfers))
