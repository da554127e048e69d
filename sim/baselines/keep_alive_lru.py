"""Keep-alive and LRU: the cluster's device memory as one cache of models.

The original, as in OpenWhisk or in model servers with a bounded cache: an instance stays for a fixed time after its
last request (OpenWhisk's default: 10 minutes), and when memory is wanted, the one goes that nobody has used for
longest, wherever it is. Given beside that: batching, joining, and the nearest worker among those with free memory.
"""

from sim.baselines.desk import Desk
from sim.baselines.keeping import expire
from sim.baselines.serve import least_busy, serve
from sim.baselines.starting import start
from sim.policy import ClusterState, Plan, WaitingRequest, WorkerState

KEEP_ALIVE_S = 600.0


class KeepAliveLru:
    """Remembers nothing: the facts say since when a replica is unused."""

    name = "keep-alive-lru"

    def decide(self, state: ClusterState, now: float) -> Plan:
        """Free memory first; then that of the least recently used."""
        desk = Desk(state)

        def last_use_s(worker: WorkerState, model: str) -> tuple[float, ...]:
            if desk.fits(worker, model):
                return 0.0, desk.load_s(worker, model)
            evicted = desk.evictions(worker, model)
            return 1.0, max((one.idle_since_s or 0.0 for one in evicted), default=now)

        def make(request: WaitingRequest) -> bool:
            return start(desk, request.model, lambda worker: last_use_s(worker, request.model))

        serve(desk, state.waiting, lambda open_: least_busy(open_, desk), make)
        look_again_s = expire(desk, now, lambda _: KEEP_ALIVE_S)
        return Plan(tuple(desk.actions), look_again_s)
