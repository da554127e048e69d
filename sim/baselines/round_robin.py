"""Round robin: workers take turns, and so do the replicas of a model.

The original is what most load balancers do, ServerlessLLM's released router among them, for requests; here it is done
for placements, too. Given beside that: batching, joining, replicas that stay until their memory is wanted, and
eviction of the longest unused one on the worker whose turn is next.
"""

from collections import Counter

from sim.baselines.desk import Desk
from sim.baselines.serve import serve
from sim.baselines.starting import start
from sim.policy import ClusterState, Plan, Resident, WaitingRequest, WorkerState


class RoundRobin:
    """Remembers whose turn it is: of the workers, and of each model's replicas."""

    name = "round-robin"

    def __init__(self) -> None:
        self._turn = 0
        self._turns = Counter[str]()

    def decide(self, state: ClusterState, now: float) -> Plan:
        """The next in turn that can."""
        desk = Desk(state)
        order = {worker_id: number for number, worker_id in enumerate(sorted(desk.workers))}

        def pick(open_: list[Resident]) -> Resident:
            model = open_[0].spot.model
            self._turns[model] += 1
            return open_[self._turns[model] % len(open_)]

        def turns_away(worker: WorkerState) -> float:
            return (order[worker.id] - self._turn) % len(order)

        def make(request: WaitingRequest) -> bool:
            made = start(desk, request.model, turns_away)
            self._turn += made
            return made

        serve(desk, state.waiting, pick, make)
        return Plan(tuple(desk.actions))
