"""Having requests make way for a version, on a worker where it would start much sooner or find memory at all: whether
that pays, and the first steps.

Nothing here waits. A plan is remembered (evacuation.py): what runs there is loaded elsewhere, moves when that answers,
and leaves an idle replica behind, which is evicted as any other.
"""

from mesh.facts import ModelEntry
from policy.actions import Action, MakeWay
from policy.candidates import Candidate
from policy.evacuation import along, plan_for
from policy.knobs import Knobs
from policy.migration import Way, latest_s, users, way_at
from policy.moving import Evacuation, Leg
from policy.patience import Patience
from policy.rates import Quantity, Rate
from policy.room import spot_of
from policy.view import View
from policy.waits import slot_wait


def make_way(patience: Patience, entry: ModelEntry, able: list[Candidate], load_s: float | None) -> list[Action]:
    """The first steps of the plan under which `entry` starts soonest, if it is clearly sooner than by any other means:
    a load where memory is free or idle takes `load_s` (None: all is in use). A worker takes part in one plan at a
    time."""
    view, now, knobs = patience.view, patience.now, patience.knobs
    if plan_for(view, entry):
        return []
    most_s = _held_s(view, able, knobs) if load_s is None else load_s
    there = users(patience, entry, most_s, spares=load_s is None)
    if not there:
        return []
    before_s = latest_s(_otherwise_s(patience, entry, most_s), knobs)
    able_there = (one for one in there if one.estimate_s < before_s)
    found = [way for one in able_there if (way := way_at(view, entry, one, now, knobs))]
    best = min(found, key=lambda way: (way.score_s(knobs), way.candidate.member.id), default=None)
    return _begin(view, entry, best, now, knobs) if best and best.score_s(knobs) < before_s else []


def _otherwise_s(patience: Patience, entry: ModelEntry, load_s: float) -> float:
    """How long a request for the version waits if nothing moves: for a load, or for a slot of a full replica."""
    view, knobs = patience.view, patience.knobs
    slots = sum(seat.slots for seat in view.seats(entry.name) if view.settled(seat))
    load_s = min(load_s, patience.near_s(entry, load_s))
    if not slots:
        return load_s
    ahead = max(0, len(view.queues.of(entry.name)) - 1)
    return min(load_s, view.rates.seconds(slot_wait(view.rates, entry.name, ahead, slots, knobs)))


def _held_s(view: View, able: list[Candidate], knobs: Knobs) -> float:
    """Until the version is loaded where memory is in use: as long as a place is held, and then the load."""
    return view.rates.mean_s(Rate(Quantity.HELD, ""), knobs.held_s) + min((c.estimate_s for c in able), default=0.0)


def _begin(view: View, entry: ModelEntry, way: Way, now: float, knobs: Knobs) -> list[Action]:
    choice = way.choice
    legs = tuple(Leg(victim.source, victim.goal) for victim in choice.victims if victim.goal)
    until_s = now + 2.0 * choice.delay_s + knobs.make_way_s
    plan = Evacuation(spot_of(entry, way.candidate), legs, way.candidate.estimate_s, until_s, way.reason)
    loads = [victim.load for victim in choice.victims if victim.load]
    return [MakeWay(plan), *loads, *along(view, plan, now, knobs)]
