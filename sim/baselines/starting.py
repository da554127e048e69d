"""Where a model is loaded that has no slot and no load to join: by some order of workers, or where that takes least."""

from collections.abc import Callable, Collection

from sim.baselines.desk import Desk
from sim.policy import WorkerState

Rank = float | tuple[float, ...]


def start(desk: Desk, model: str, rank: Callable[[WorkerState], Rank]) -> bool:
    """Loads a model on the first worker by `rank` that has room; where none has, waits for the room that comes, or
    makes some by unloading what is idle, again on the first that can. False: nothing can be done now."""
    able = sorted(desk.elsewhere(model), key=lambda worker: (rank(worker), worker.id))
    free = next((worker for worker in able if desk.fits(worker, model)), None)
    soon = free or next((worker for worker in able if desk.room_comes(worker, model)), None)
    chosen = soon or next((worker for worker in able if desk.can_start(worker, model)), None)
    return chosen is not None and start_at(desk, chosen, model)


def start_at(desk: Desk, worker: WorkerState, model: str) -> bool:
    """Loads a model on a worker that has room, or as soon as what is leaving or idle there has gone."""
    if desk.fits(worker, model):
        desk.load(worker, model)
    else:
        desk.unload(desk.evictions(worker, model))
        desk.expect(worker, model)
    return desk.join(model)


def start_nearest(desk: Desk, model: str, excluded: Collection[str] = frozenset()) -> bool:
    """Loads a model where that takes least, for which idle replicas make way, the longest unused first. False: nothing
    can be done now."""
    able = [one for one in desk.elsewhere(model) if one.id not in excluded and desk.can_start(one, model)]
    best = min(able, key=lambda one: (desk.load_s(one, model), desk.trouble(one, model), one.id), default=None)
    return best is not None and start_at(desk, best, model)
