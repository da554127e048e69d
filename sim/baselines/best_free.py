"""Best free: among workers whose memory nobody uses, the one where the load takes least.

The original is the part of ServerlessLLM's policy (OSDI'24) that is left when nothing is moved away from the server
that is closest to the checkpoint. Given beside that: batching, joining, and replicas that stay until their memory is
wanted.
"""

from sim.baselines.desk import Desk
from sim.baselines.serve import least_busy, serve
from sim.baselines.starting import start_nearest
from sim.policy import ClusterState, Plan, WaitingRequest


class BestFree:
    """Remembers nothing."""

    name = "best-free"

    def decide(self, state: ClusterState, now: float) -> Plan:
        """The shortest load that can begin, queues of disks and networks counted."""
        desk = Desk(state)

        def make(request: WaitingRequest) -> bool:
            return start_nearest(desk, request.model)

        serve(desk, state.waiting, lambda open_: least_busy(open_, desk), make)
        return Plan(tuple(desk.actions))
