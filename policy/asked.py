"""Where a running request can go on that somebody wants moved, and what has to be done for it first."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from mesh.facts import ModelEntry
from mesh.requests import MoveKind
from policy.actions import Load, LoadReason, Unload
from policy.candidates import Candidate, candidate_at, candidates, load
from policy.knobs import Knobs
from policy.relocation import route, transfer
from policy.room import cheapest_eviction, coming_room, soonest
from policy.view import Seat, Spot, View


class Obstacle(StrEnum):
    """Why it cannot; the names are ErrorInfo reasons."""

    FULL = "NO_SLOT"
    SUPERSEDED = "VERSION_GONE"
    NO_ROOM = "NO_ROOM"


@dataclass(frozen=True, slots=True)
class Step:
    """Where it can go on now, or what is done so that it can, or why it never will; else something is under way that it
    waits for."""

    goal: Spot | None = None
    actions: tuple[Load | Unload, ...] = ()
    claims: tuple[Spot, ...] = ()
    obstacle: Obstacle | None = None


def step(view: View, source: Spot, to_worker_id: str, now: float, knobs: Knobs) -> Step:
    """Of a request that runs at `source`, towards one worker or, if none is named, any other: a replica of the same
    version that has a slot, else a load of it, and room for that where something idles."""
    others = [seat for seat in view.seats(source.model) if _is_other(view, seat, source, to_worker_id)]
    slots = [seat for seat in others if view.settled(seat) and view.crowd(seat) < seat.slots]
    if slots:
        return Step(goal=min(slots, key=lambda seat: (view.crowd(seat), seat.spot)).spot)
    entry = view.cluster.models.get(source.model)
    if _is_changing(view, others, source, to_worker_id):
        return Step()
    if entry is None or entry.checkpoint.digest != source.digest:
        return Step(obstacle=Obstacle.SUPERSEDED)
    if to_worker_id and others:
        return Step(obstacle=Obstacle.FULL)
    return _make_replica(view, entry, _able(view, entry, to_worker_id, now, knobs), now, knobs)


def quicker_kind(view: View, source: Spot, goal: Spot, number: str, *, now: float, knobs: Knobs) -> MoveKind | None:
    """How it is sooner there; None where what runs at the source is not known to."""
    seat, run = view.replicas.seat(source), view.runs.get(source, {}).get(number)
    return transfer(view, route(view, seat, goal), run, now, knobs).kind if seat and run else None


def _is_other(view: View, seat: Seat, source: Spot, to_worker_id: str) -> bool:
    wanted = not to_worker_id or seat.member.id == to_worker_id
    same = seat.replica.digest == source.digest and seat.spot != source
    return wanted and same and not view.cluster.is_draining(seat.member)


def _is_changing(view: View, others: Sequence[Seat], source: Spot, to_worker_id: str) -> bool:
    """Whether a replica comes, or goes, that may make a difference."""
    loads = (spot for spot in view.replicas.loads_of(source.model) if spot.digest == source.digest)
    coming = any(to_worker_id in ("", spot.worker_id) for spot in loads)
    return coming or any(not view.settled(seat) for seat in others)


def _able(view: View, entry: ModelEntry, to_worker_id: str, now: float, knobs: Knobs) -> list[Candidate]:
    if not to_worker_id:
        return candidates(view, entry, now, knobs)
    if view.distrusts(to_worker_id, now):
        return []
    return list(candidate_at(view, entry, view.index.workers[to_worker_id], knobs))


def _make_replica(view: View, entry: ModelEntry, able: list[Candidate], now: float, knobs: Knobs) -> Step:
    if best := soonest(view, entry, able):
        return Step(actions=(replace(load(view, entry, best), reason=LoadReason.MOVE),))
    if coming := coming_room(view, entry, able):
        return Step(claims=(coming,))
    if plan := cheapest_eviction(view, entry, able, now, knobs):
        return Step(actions=plan.unloads, claims=(plan.claim,))
    return Step(obstacle=Obstacle.NO_ROOM)
