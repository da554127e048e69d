"""Locality and waiting: the worker that is closest to the checkpoint, even if requests have to leave it first.

The original is delay scheduling (EuroSys'10), and the "locality-driven" policy that ServerlessLLM (OSDI'24) is
contrasted with: a request waits for the server that has its data, as long as that takes. Given beside that: it waits
only where the estimate says that this is sooner than any load that could begin now, and at most PATIENCE_S while
there is such a load; batching, joining, replicas that stay until their memory is wanted.
"""

import math

from sim.baselines.desk import Desk
from sim.baselines.serve import least_busy, serve
from sim.baselines.starting import start_nearest
from sim.baselines.waiting import soonest_s
from sim.policy import ClusterState, Plan, WaitingRequest

PATIENCE_S = 10.0


class LocalityWait:
    """Remembers nothing."""

    name = "locality-wait"

    def decide(self, state: ClusterState, now: float) -> Plan:
        """The soonest of a load now, a load when room has come, and a slot that opens."""
        desk = Desk(state)
        look_again_s = math.inf

        def make(request: WaitingRequest) -> bool:
            nonlocal look_again_s
            model, patient_s = request.model, request.since_s + PATIENCE_S
            workers = desk.elsewhere(model)
            now_s = min((desk.load_s(one, model) for one in workers if desk.can_start(one, model)), default=math.inf)
            if now < patient_s and soonest_s(desk, model) < now_s < math.inf:
                look_again_s = min(look_again_s, patient_s)
                return False
            return start_nearest(desk, model)

        serve(desk, state.waiting, lambda open_: least_busy(open_, desk), make)
        return Plan(tuple(desk.actions), look_again_s if look_again_s < math.inf else None)
