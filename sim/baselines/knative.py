"""Knative's autoscaler (KPA), as KServe has it, over a scheduler that spreads replicas.

The original averages a model's concurrency over a stable window of 60 s and a panic window of 6 s, every 2 s, and
wants 70 % of what its replicas can take; where the panic window wants twice what there is, it only adds for the next
60 s; after a stable window without requests, and 30 s of grace, it goes to zero; a request that finds nothing is
held, and starts a replica at once. Replicas that find no memory are pending, oldest first: nobody's idle ones make
room. Kubernetes puts them on the node with most free. Given beside that: replicas take as many requests at once as
here, those that are pending are given up when no longer wanted, and among the workers with equally much free the
load's time decides.
"""

import math
from collections import Counter, deque

from mesh.facts import ReplicaState
from policy.actions import UnloadReason
from sim.baselines.desk import Desk
from sim.baselines.serve import least_busy
from sim.policy import ClusterState, Plan, WorkerState

TICK_S = 2.0
STABLE_S, PANIC_S, GRACE_S = 60.0, 6.0, 30.0
PANIC_FACTOR = 2.0
UTILIZATION = 0.7


class Concurrency:
    """How many requests a model had, and when that changed, for a stable window and the grace."""

    def __init__(self, now: float) -> None:
        self._changes: deque[tuple[float, int]] = deque([(now, 0)])
        self.panics_until_s = -math.inf

    def note(self, now: float, requests: int) -> None:
        """So many from now on."""
        if self._changes[-1][1] != requests:
            self._changes.append((now, requests))
        while len(self._changes) > 1 and self._changes[1][0] <= now - STABLE_S - GRACE_S:
            self._changes.popleft()

    def mean(self, now: float, window_s: float) -> float:
        """Over the window that ends now; before the first request there were none."""
        total, until_s = 0.0, now
        for at_s, requests in reversed(self._changes):
            total += requests * max(0.0, until_s - max(at_s, now - window_s))
            until_s = at_s
        return total / window_s

    def is_over(self, now: float) -> bool:
        """Whether there has been no request for a stable window and the grace."""
        return self._changes[-1][1] == 0 and self._changes[-1][0] <= now - STABLE_S - GRACE_S


class Knative:
    """Remembers each model's concurrency, and how many replicas it is to have."""

    name = "knative"

    def __init__(self) -> None:
        self._seen: dict[str, Concurrency] = {}
        self._wanted = Counter[str]()
        self._tick_s = 0.0

    def decide(self, state: ClusterState, now: float) -> Plan:
        """Slots are given at once; how many replicas there are to be changes at ticks, and from zero."""
        desk = Desk(state)
        held = Counter[str]()
        for request in state.waiting:
            if request.model not in desk.models:
                desk.refuse(request)
            elif open_ := desk.open(request.model):
                desk.place(request, least_busy(open_, desk))
            else:
                held[request.model] += 1
        self._note(desk, now)
        if self._tick_s <= now:
            self._tick_s = now + TICK_S
            self._scale(desk, now)
        for model in held:
            self._wanted[model] = max(1, self._wanted[model])
        self._follow(desk)
        return Plan(tuple(desk.actions), self._tick_s if self._seen else None)

    def _note(self, desk: Desk, now: float) -> None:
        requests = Counter(request.model for request in desk.state.waiting if request.model in desk.models)
        for one in desk.state.residents():
            requests[one.spot.model] += len(one.running)
        for model in requests.keys() | self._seen.keys():
            self._seen.setdefault(model, Concurrency(now)).note(now, requests[model])

    def _scale(self, desk: Desk, now: float) -> None:
        slots = max((worker.slots for worker in desk.workers.values()), default=1)
        for model, seen in list(self._seen.items()):
            stable, panic = (
                math.ceil(seen.mean(now, span_s) / (UTILIZATION * slots)) for span_s in (STABLE_S, PANIC_S)
            )
            if panic >= PANIC_FACTOR * max(1, len(desk.ready(model))):
                seen.panics_until_s = now + STABLE_S
            if seen.panics_until_s > now:
                self._wanted[model] = max(self._wanted[model], panic)
            elif stable:
                self._wanted[model] = stable
            elif seen.is_over(now):
                del self._seen[model]
                self._wanted[model] = 0

    def _follow(self, desk: Desk) -> None:
        """Loads what is wanted where there is memory, and ends what is unused beyond it."""
        residents = desk.state.residents()
        there = Counter(one.spot.model for one in residents if one.state is not ReplicaState.DRAINING)
        for model, wanted in self._wanted.items():
            for _ in range(wanted - there[model]):
                free = [one for one in desk.elsewhere(model) if desk.fits(one, model)]
                if free:
                    desk.load(min(free, key=lambda one: _rank(desk, one, model)), model)
            unused = [one for one in desk.ready(model) if desk.unused(one)]
            desk.unload(unused[: max(0, there[model] - wanted)], UnloadReason.SCALED_IN)
        self._wanted = Counter({model: wanted for model, wanted in self._wanted.items() if wanted or there[model]})


def _rank(desk: Desk, worker: WorkerState, model: str) -> tuple[float, float, str]:
    return -desk.free_bytes(worker), desk.load_s(worker, model), worker.id
