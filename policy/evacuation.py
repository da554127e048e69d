"""A worker that makes way for a version, step by step: each decision takes those that the facts allow, and drops a plan
that they have overtaken."""

from mesh.facts import ModelEntry
from policy.actions import Move
from policy.candidates import Candidate
from policy.draft import Draft
from policy.knobs import Knobs
from policy.moving import Evacuation, Leg
from policy.relocation import has_room, move, rests
from policy.spot import Spot
from policy.view import View


def plan_for(view: View, entry: ModelEntry) -> Evacuation | None:
    """The plan under way that makes room for a version."""
    version = entry.name, entry.checkpoint.digest
    return next((plan for plan in view.moving.evacuations if (plan.spot.model, plan.spot.digest) == version), None)


def no_farther(view: View, entry: ModelEntry, able: list[Candidate]) -> list[Candidate]:
    """Of the candidates, those no farther than the worker that makes way for the version, if one does."""
    plan = plan_for(view, entry)
    if plan is None:
        return able
    return [c for c in able if c.member.id == plan.spot.worker_id or c.estimate_s < plan.estimate_s]


def follow(draft: Draft, now: float, knobs: Knobs) -> list[float]:
    """Moves what can go to its goal now. Returns when plans are given up."""
    view = draft.view
    for plan in view.moving.evacuations:
        draft.take(along(view, plan, now, knobs))
    return [plan.until_s for plan in view.moving.evacuations]


def stands(view: View, plan: Evacuation, now: float) -> bool:
    """Whether a plan is still worth following: somebody waits for the version, which is not on its way, and each leg's
    source is empty or its goal there, or coming."""
    entry = view.cluster.models.get(plan.spot.model)
    if now >= plan.until_s or entry is None or entry.checkpoint.digest != plan.spot.digest:
        return False
    if view.is_loading(entry, now) or not view.queues.of(entry.name):
        return False
    return all(_passable(view, leg) for leg in plan.legs)


def _passable(view: View, leg: Leg) -> bool:
    source, goal = view.replicas.seat(leg.source), view.replicas.seat(leg.goal)
    return (
        source is None or not view.busy(source) or leg.goal in view.loading or (goal is not None and view.settled(goal))
    )


def along(view: View, plan: Evacuation, now: float, knobs: Knobs) -> list[Move]:
    """The next request that can go from where it is in the way to its goal; they follow one another."""
    if plan.spot.worker_id in view.moving.workers():
        return []
    for leg in plan.legs:
        source, goal = view.replicas.seat(leg.source), view.replicas.seat(leg.goal)
        going = [one for one in view.running(leg.source) if not rests(one, now, knobs)]
        if going and source and goal and has_room(view, goal, now):
            return [move(view, source, leg.goal, going[0], plan.reason, now=now, knobs=knobs)]
    return []


def leaves(view: View, spot: Spot) -> bool:
    """Whether what runs on a replica is to go on elsewhere, and that answers already."""
    goals = (leg.goal for plan in view.moving.evacuations for leg in plan.legs if leg.source == spot)
    return any((goal := view.replicas.seat(one)) is not None and view.settled(goal) for one in goals)
