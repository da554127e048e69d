"""What loads took, against what they were to take: corrects a node's nominal rates, as they are learnt from reports."""

from collections import defaultdict

from mesh.facts import ReplicaState
from policy.view import Spot
from sim.baselines.desk import Desk
from sim.policy import WorkerState

FORGETTING = 0.3  # the weight of a new observation
FEWEST, MOST = 0.2, 20.0  # a disk that stalls tells nothing about its rate


class Learning:
    """One factor a node. `took_s` is what the load of a replica took that is there."""

    def __init__(self) -> None:
        self._began: dict[Spot, tuple[float, float]] = {}  # when, and what it was to take
        self._factors: defaultdict[str, float] = defaultdict(lambda: 1.0)
        self.took_s: dict[Spot, float] = {}

    def expects(self, desk: Desk, worker: WorkerState, model: str) -> float:
        """Seconds of a load that begins now."""
        return desk.load_s(worker, model) * self._factors[worker.node_id]

    def began(self, desk: Desk, worker: WorkerState, spot: Spot, now: float) -> None:
        """A load begins; asked before the desk has it in its queue."""
        self._began[spot] = now, desk.load_s(worker, spot.model)

    def watch(self, desk: Desk, now: float) -> None:
        """Takes note of the loads that have ended."""
        there = {one.spot: one for one in desk.state.residents()}
        self.took_s = {spot: seconds for spot, seconds in self.took_s.items() if spot in there}
        for spot, (began_s, was_to_take_s) in list(self._began.items()):
            if spot not in there or there[spot].state is not ReplicaState.LOADING:
                del self._began[spot]
            if spot in there and there[spot].state is ReplicaState.READY:
                self.took_s[spot] = now - began_s
                ratio = min(MOST, max(FEWEST, self.took_s[spot] / was_to_take_s))
                node_id = desk.workers[spot.worker_id].node_id
                self._factors[node_id] += FORGETTING * (ratio - self._factors[node_id])
