"""Random: any worker will do.

The original, "Serverless" in ServerlessLLM's evaluation (OSDI'24), starts each request that finds no instance on a
free GPU drawn at random. Given beside that: batching, joining, replicas that stay until their memory is wanted, and
eviction of the longest unused one on a worker drawn at random when no memory is free.
"""

import numpy as np

from sim.baselines.desk import Desk
from sim.baselines.serve import serve
from sim.baselines.starting import start
from sim.policy import ClusterState, Plan, Resident, WaitingRequest


class Random:
    """Draws from its seed."""

    name = "random"

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def decide(self, state: ClusterState, now: float) -> Plan:
        """Draws for every choice."""
        desk = Desk(state)

        def pick(open_: list[Resident]) -> Resident:
            return open_[int(self._rng.integers(len(open_)))]

        def make(request: WaitingRequest) -> bool:
            return start(desk, request.model, lambda _: float(self._rng.random()))

        serve(desk, state.waiting, pick, make)
        return Plan(tuple(desk.actions))
