"""Shepherd*: requests at the closest server are stopped, and begin again later.

The original, in ServerlessLLM's evaluation (OSDI'24), has that paper's estimator, but where the best server is busy
it preempts what runs there instead of moving it away, after Shepherd (NSDI'23), which preempts for what is worth more
than three times what it stops. Given beside that: a stopped request keeps its tokens and only computes their KV anew;
it stops others only where it gains PRICE times what they lose, and nobody twice in SPARE_S; batching, joining,
replicas that stay until their memory is wanted.
"""

import math

from sim.baselines.claims import Claims
from sim.baselines.desk import Desk
from sim.baselines.knapsack import Choice, cheapest
from sim.baselines.serve import least_busy, serve
from sim.baselines.starting import start_nearest
from sim.baselines.startup import resume_s
from sim.baselines.waiting import soonest_s
from sim.policy import ClusterState, Plan, Preempt, Resident, WaitingRequest, WorkerState

PRICE = 3.0
SPARE_S = 30.0


class Shepherd:
    """Remembers whom it stopped, and for which model it cleared a worker."""

    name = "shepherd"

    def __init__(self) -> None:
        self._spared_until_s: dict[str, float] = {}
        self._claims = Claims()

    def decide(self, state: ClusterState, now: float) -> Plan:
        """In the order in which requests began to wait, so that one that was stopped comes after whom it was for."""
        desk = Desk(state)
        self._spared_until_s = {one: until_s for one, until_s in self._spared_until_s.items() if until_s > now}
        self._claims.go_on(desk)

        def make(request: WaitingRequest) -> bool:
            model = request.model
            return self._preempt(desk, model, now) or start_nearest(desk, model, self._claims.others(model))

        in_turn = sorted(state.waiting, key=lambda request: request.since_s)
        serve(desk, in_turn, lambda open_: least_busy(open_, desk), make)
        return Plan(tuple(desk.actions))

    def _preempt(self, desk: Desk, model: str, now: float) -> bool:
        """Clears the worker where a model gains most by it, if that is worth it."""
        else_s = soonest_s(desk, model)
        plans = [
            (else_s - desk.load_s(worker, model) - PRICE * cost_s, worker, victims)
            for worker in desk.elsewhere(model)
            if worker.id not in self._claims.others(model) and not desk.room_comes(worker, model)
            for cost_s, victims in [self._victims(desk, worker, model)]
        ]
        gain_s, worker, victims = max(plans, key=lambda plan: (plan[0], plan[1].id), default=(0.0, None, ()))
        if worker is None or gain_s <= 0.0:
            return False
        for victim in victims:
            for one in victim.running:
                self._spared_until_s[one.id] = now + SPARE_S
                desk.actions.append(Preempt(one.id))
        desk.unload(victims)
        self._claims.add(worker, model)
        desk.expect(worker, model)
        return desk.join(model)

    def _victims(self, desk: Desk, worker: WorkerState, model: str) -> Choice:
        ready = [one for one in worker.residents if desk.untouched(one) and not self._spares(one)]
        missing = desk.missing_bytes(worker, model)
        return cheapest(((one, _loss_s(desk, worker, one)) for one in ready), missing) or (math.inf, ())

    def _spares(self, resident: Resident) -> bool:
        return any(one.id in self._spared_until_s for one in resident.running)


def _loss_s(desk: Desk, worker: WorkerState, victim: Resident) -> float:
    """What its requests lose, all together: each waits for another load, at best as quick as one here, and computes its
    KV anew."""
    model = desk.models[victim.spot.model]
    load_s = desk.load_s(worker, model.name)
    return sum(load_s + resume_s(model, one) for one in victim.running)
