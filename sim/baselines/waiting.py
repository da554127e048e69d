"""How long until running requests have left: estimates from the mean length of each model's answers."""

import math

from mesh.facts import ReplicaState
from sim.baselines.desk import Desk
from sim.policy import Resident, WorkerState


def left_s(resident: Resident) -> float:
    """Seconds until nothing runs on a replica."""
    return max((one.left_s for one in resident.running), default=0.0)


def slot_wait_s(desk: Desk, model: str) -> float:
    """Seconds until the first slot of a model's replicas opens; without replicas that answer, never."""
    return min((one.left_s for here in desk.ready(model) for one in here.running), default=math.inf)


def room_wait_s(desk: Desk, worker: WorkerState, model: str) -> float:
    """Seconds until so many replicas are unused that a model has room; where what loads is in the way, never."""
    missing, wait_s = desk.missing_bytes(worker, model), 0.0
    ready = (one for one in worker.residents if one.state is ReplicaState.READY)
    for seconds, size in sorted((left_s(one), one.bytes) for one in ready):
        if missing <= 0:
            break
        missing, wait_s = missing - size, seconds
    return wait_s if missing <= 0 else math.inf


def soonest_s(desk: Desk, model: str) -> float:
    """Seconds until a model can answer one more request, if nobody is disturbed: by a load that begins now, after a
    wait for room, or in a slot that opens."""
    rooms = (room_wait_s(desk, worker, model) + desk.load_s(worker, model) for worker in desk.elsewhere(model))
    return min(slot_wait_s(desk, model), min(rooms, default=math.inf))
