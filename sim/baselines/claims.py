"""Workers that have been cleared for a model: nobody else's load goes there before."""

from sim.baselines.desk import Desk
from sim.policy import WorkerState


class Claims:
    """One model a worker, until its load begins, nobody waits for it any more, or the worker is gone."""

    def __init__(self) -> None:
        self._models: dict[str, str] = {}

    def add(self, worker: WorkerState, model: str) -> None:
        """A worker is being cleared for a model."""
        self._models[worker.id] = model

    def others(self, model: str) -> set[str]:
        """The workers that are kept for other models."""
        return {worker_id for worker_id, wanted in self._models.items() if wanted != model}

    def go_on(self, desk: Desk) -> None:
        """Begins the loads that have room by now, and keeps the room of the others."""
        waited_for = {request.model for request in desk.state.waiting}
        for worker_id, model in list(self._models.items()):
            worker = desk.workers.get(worker_id)
            if worker is None or model not in waited_for or not desk.room_comes(worker, model):
                del self._models[worker_id]
            elif desk.fits(worker, model):
                del self._models[worker_id]
                desk.load(worker, model)
            else:
                desk.expect(worker, model)
