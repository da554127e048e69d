"""ServerlessLLM's move: all that runs on a replica goes on elsewhere, and what is loaded there makes way."""

from dataclasses import dataclass

from mesh.facts import ReplicaState
from policy.actions import Move
from policy.view import Spot
from sim.baselines.desk import Desk
from sim.baselines.startup import resume_s
from sim.policy import Resident, WorkerState


@dataclass(frozen=True, slots=True)
class Migration:
    """What runs at `source` is to go on at `to`."""

    source: Resident
    to: WorkerState
    seconds: float  # of the destination's load, if it has no replica, and of computing all KV anew


def destination(desk: Desk, victim: Resident, excluded: set[str]) -> Migration | None:
    """The quickest destination of all that runs on a replica; None if nowhere is room for it."""
    model, count = desk.models[victim.spot.model], len(victim.running)
    kv_s = sum(resume_s(model, one) for one in victim.running)
    ready = [one for one in desk.open(model.name) if one.spot != victim.spot and desk.open_slots(one) >= count]
    found = [Migration(victim, desk.workers[one.spot.worker_id], kv_s) for one in ready]
    empty = [one for one in desk.elsewhere(model.name) if desk.can_start(one, model.name)]
    found += [Migration(victim, one, kv_s + desk.load_s(one, model.name)) for one in empty]
    able = (one for one in found if one.to.id not in excluded and one.to.id != victim.spot.worker_id)
    return min(able, key=lambda one: (one.seconds, one.to.id), default=None)


def advance(desk: Desk, source: Spot, to_id: str) -> bool:
    """The next step of a migration: a replica at its destination, then the moves, then the end of its source. False: it
    cannot be any more."""
    leaver, worker = _resident(desk, source), desk.workers.get(to_id)
    if leaver is None or leaver.state is ReplicaState.DRAINING:
        return True
    unused = desk.unused(leaver)
    desk.close(leaver)
    if unused:
        desk.unload([leaver])
        return True
    if worker is None:
        return False
    there = _resident(desk, Spot(to_id, source.model, source.digest))
    if there is None:
        return _prepare(desk, worker, source.model)
    if there.state is ReplicaState.READY:
        moving = _elsewhere(desk, leaver)
        for one in leaver.running:
            if one.id not in moving and desk.open_slots(there) > 0:
                desk.take(there)
                desk.actions.append(Move(one.id, there.spot))
    return there.state is not ReplicaState.DRAINING


def _prepare(desk: Desk, worker: WorkerState, model: str) -> bool:
    """Loads at the destination, as soon as there is room."""
    if not desk.can_start(worker, model):
        return False
    if desk.fits(worker, model):
        desk.load(worker, model)
    else:
        desk.unload(desk.evictions(worker, model))
        desk.expect(worker, model)
    return True


def _elsewhere(desk: Desk, leaver: Resident) -> set[str]:
    """Requests that run at other replicas of its model: one of both is where they come from, or go to."""
    others = (one for worker in desk.workers.values() for one in worker.residents if one.spot != leaver.spot)
    return {running.id for one in others if one.spot.model == leaver.spot.model for running in one.running}


def _resident(desk: Desk, spot: Spot) -> Resident | None:
    worker = desk.workers.get(spot.worker_id)
    return next((one for one in worker.residents if one.spot == spot), None) if worker else None
