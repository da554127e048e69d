"""Moving running requests away from a worker where a version would start much sooner, or find memory at all: whether
that pays, and its steps.

Nothing here waits. A plan is remembered (evacuation.py): what runs there is loaded elsewhere, moves when that answers,
and leaves an idle replica behind, which is evicted as any other.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mesh.facts import ModelEntry
from policy.actions import Action, Load, LoadReason, MakeWay, MoveReason
from policy.candidates import Candidate, candidates, candidates_of, load, near_candidates
from policy.evacuation import along, plan_for
from policy.knobs import Knobs
from policy.moving import Evacuation, Leg
from policy.offers import Offers
from policy.patience import Patience
from policy.rates import Quantity, Rate
from policy.relocation import rests, route, transfer
from policy.room import cheapest_eviction, coming_room, free_bytes, missing_bytes, spot_of
from policy.size import need_bytes
from policy.spares import spare_workers
from policy.spot import Spot
from policy.transfer import BURNT, Transfer
from policy.victims import Choice, Victim, cheapest
from policy.view import Running, Seat, View
from policy.waits import slot_wait


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
    choice: Choice
    reason: MoveReason = MoveReason.LOCALITY

    def score_s(self, knobs: Knobs) -> float:
        """Until the version answers there, and what others pay for it."""
        return self.choice.delay_s + knobs.unload_s + self.candidate.estimate_s + self.choice.cost_s


def make_way(
    view: View, entry: ModelEntry, able: list[Candidate], now: float, knobs: Knobs, *, best: Candidate | None
) -> list[Action]:
    """The first steps of the plan under which `entry` starts soonest, if it is clearly sooner than by any other means,
    of which `best` is a load into free memory. A worker takes part in one plan at a time."""
    if not knobs.moves or plan_for(view, entry):
        return []
    able_there = [
        one for one in _users(view, entry, now, knobs) if not best or _wins(one.estimate_s, best.estimate_s, knobs)
    ]
    if not able_there:
        return []
    otherwise_s = _otherwise_s(view, entry, able, now, knobs, best=best)
    users = (one for one in able_there if _wins(one.estimate_s, otherwise_s, knobs))
    found = [way for one in users if (way := _way(view, entry, one, now, knobs))]
    best_way = min(found, key=lambda way: (way.score_s(knobs), way.candidate.member.id), default=None)
    if best_way is None or not _wins(best_way.score_s(knobs), otherwise_s, knobs):
        return []
    return _begin(view, entry, best_way, now, knobs)


def ways(view: View, entry: ModelEntry, now: float, knobs: Knobs) -> list[Way]:
    """Every worker where others could make way for a version, whether or not that pays."""
    return [way for one in _users(view, entry, now, knobs) if (way := _way(view, entry, one, now, knobs))]


def _users(view: View, entry: ModelEntry, now: float, knobs: Knobs) -> list[Candidate]:
    """Workers whose memory others use, and that take part in no plan: near the version's bytes, and where a few
    requests are on a replica that they do not need."""
    engaged, near = _engaged(view), near_candidates(view, entry, now, knobs)
    names = {one.member.id for one in near}
    spares = (name for name in spare_workers(view) if name not in names) if view.surplus_since_s else ()
    found = [*near, *candidates_of(view, entry, spares, now, knobs)]
    return [one for one in found if one.member.id not in engaged]


def _otherwise_s(
    view: View, entry: ModelEntry, able: list[Candidate], now: float, knobs: Knobs, *, best: Candidate | None
) -> float:
    """How long a request for the version waits if nothing moves: for a load, or for a slot of a full replica."""
    slots = sum(seat.slots for seat in view.seats(entry.name) if view.settled(seat))
    load_s = best.estimate_s if best else _room_s(view, entry, able, now, knobs)
    load_s = min(load_s, Patience(view, now, knobs, Offers(view, entry, knobs)).near_s(entry))
    if not slots:
        return load_s
    ahead = max(0, len(view.queues.of(entry.name)) - 1)
    return min(load_s, view.rates.seconds(slot_wait(view.rates, entry.name, ahead, slots, knobs)))


def _room_s(view: View, entry: ModelEntry, able: list[Candidate], now: float, knobs: Knobs) -> float:
    """Until the version is loaded where there is no room yet; of memory in use, as long as a place is held."""
    if coming_room(view, entry, able):
        return 0.0
    if plan := cheapest_eviction(view, entry, able, now, knobs):
        return knobs.unload_s + next(c.estimate_s for c in able if c.member.id == plan.claim.worker_id)
    return view.rates.mean_s(Rate(Quantity.HELD, ""), knobs.held_s) + min((c.estimate_s for c in able), default=0.0)


def _wins(this_s: float, other_s: float, knobs: Knobs) -> bool:
    return other_s - this_s > max(knobs.move_wins_s, knobs.move_wins_share * other_s)


def _engaged(view: View) -> set[str]:
    """Workers that take part in a plan."""
    return {worker_id for plan in view.moving.evacuations for worker_id in plan.workers}


def _way(view: View, entry: ModelEntry, candidate: Candidate, now: float, knobs: Knobs) -> Way | None:
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


def _begin(view: View, entry: ModelEntry, way: Way, now: float, knobs: Knobs) -> list[Action]:
    choice = way.choice
    legs = tuple(Leg(victim.source, victim.goal) for victim in choice.victims if victim.goal)
    until_s = now + 2.0 * choice.delay_s + knobs.make_way_s
    plan = Evacuation(spot_of(entry, way.candidate), legs, way.candidate.estimate_s, until_s, way.reason)
    loads = [victim.load for victim in choice.victims if victim.load]
    return [MakeWay(plan), *loads, *along(view, plan, now, knobs)]
