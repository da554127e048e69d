"""Least loaded: the worker where fewest requests run, wherever the checkpoint may be.

The original is the default of cluster schedulers and of most routers: spread by load, not by what a node holds. Given
beside that: batching, joining, replicas that stay until their memory is wanted, and eviction of the longest unused
one.
"""

from sim.baselines.desk import Desk
from sim.baselines.serve import least_busy, serve
from sim.baselines.starting import start
from sim.policy import ClusterState, Plan, WaitingRequest, WorkerState


class LeastLoaded:
    """Remembers nothing."""

    name = "least-loaded"

    def decide(self, state: ClusterState, now: float) -> Plan:
        """Fewest requests first, then fewest replicas."""
        desk = Desk(state)

        def load(worker: WorkerState) -> tuple[float, ...]:
            return desk.busy(worker), len(worker.residents)

        def make(request: WaitingRequest) -> bool:
            return start(desk, request.model, load)

        serve(desk, state.waiting, lambda open_: least_busy(open_, desk), make)
        return Plan(tuple(desk.actions))
