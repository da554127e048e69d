"""ServerlessLLM's policy as its paper (OSDI'24) has it: the least start-up time, with live migration.

The original estimates for each server the queue of its loads and the model's bytes over the slowest tier's learnt
bandwidth; loads come one after another on each disk and network; where the best server is busy, dynamic programming
chooses what to move away from it, tokens being sent and their KV computed anew; a request that nothing can be done
for waits; an instance stays for as long as its load took. Given beside that: batching and joining, eviction of what
is unused before its time, no move for a gain below MARGIN_S, and, in the variant that is called lazy, replicas that
stay until their memory is wanted.
"""

import math
from dataclasses import dataclass

from policy.view import Spot
from sim.baselines.claims import Claims
from sim.baselines.desk import Desk
from sim.baselines.keeping import expire
from sim.baselines.knapsack import cheapest
from sim.baselines.learning import Learning
from sim.baselines.migration import Migration, advance, destination
from sim.baselines.serve import least_busy, serve
from sim.baselines.startup import parts
from sim.policy import ClusterState, Plan, Resident, WaitingRequest, WorkerState, spot

MARGIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Clearing:
    """Replicas of a worker, each with the worker that it moves to, and for which model."""

    wanted: str
    moves: tuple[tuple[Spot, str], ...]


class ServerlessLlm:
    """Remembers rates, and the moves under way."""

    def __init__(self, *, lazy: bool = False) -> None:
        self.name = "serverlessllm-lazy" if lazy else "serverlessllm"
        self._lazy, self._learning, self._claims = lazy, Learning(), Claims()
        self._clearings: dict[str, Clearing] = {}  # by worker
        self._known: dict[Spot, Migration | None] = {}
        self._known_at = -1
        self._look_again_s = math.inf

    def decide(self, state: ClusterState, now: float) -> Plan:
        """First what is under way, then those that wait, first come, first served."""
        desk = Desk(state)
        self._look_again_s, self._known_at = math.inf, -1
        self._learning.watch(desk, now)
        self._go_on(desk)

        def make(request: WaitingRequest) -> bool:
            return self._start(desk, request.model, now)

        serve(desk, state.waiting, lambda open_: least_busy(open_, desk), make)
        if not self._lazy:
            ends_s = expire(desk, now, lambda one: self._learning.took_s.get(one.spot, 0.0))
            self._look_again_s = min(self._look_again_s, math.inf if ends_s is None else ends_s)
        return Plan(tuple(desk.actions), self._look_again_s if self._look_again_s < math.inf else None)

    def _go_on(self, desk: Desk) -> None:
        waited_for = {request.model for request in desk.state.waiting}
        for worker_id, clearing in list(self._clearings.items()):
            worker = desk.workers.get(worker_id)
            if worker is None or clearing.wanted not in waited_for or not self._step(desk, worker, clearing):
                del self._clearings[worker_id]
        self._claims.go_on(desk)

    def _step(self, desk: Desk, worker: WorkerState, clearing: Clearing) -> bool:
        """One further step of clearing a worker; False when it is over."""
        if desk.room_comes(worker, clearing.wanted):
            self._claims.add(worker, clearing.wanted)
            return False
        steps = [advance(desk, source, to_id) for source, to_id in clearing.moves]
        if all(steps):
            desk.expect(worker, clearing.wanted)
        return all(steps)

    def _start(self, desk: Desk, model: str, now: float) -> bool:
        """Where a model can start soonest: by a load there, or by moves and a load."""
        kept = self._claims.others(model) | self._clearings.keys()
        loads, clearings = list[tuple[float, int, str]](), list[tuple[float, str, Clearing]]()
        for worker in desk.elsewhere(model):
            seconds = self._learning.expects(desk, worker, model)
            if worker.id in kept:
                continue
            if desk.can_start(worker, model):
                loads.append((seconds, desk.trouble(worker, model), worker.id))
            elif plan := self._plan(desk, worker, model):
                clearings.append((seconds + MARGIN_S + plan[0], worker.id, plan[1]))
        best, clear = min(loads, default=None), min(clearings, key=lambda one: one[:2], default=None)
        if clear and (best is None or clear[0] < best[0]):
            self._clearings[clear[1]] = clear[2]
            return self._step(desk, desk.workers[clear[1]], clear[2]) and desk.join(model)
        return best is not None and self._load(desk, desk.workers[best[2]], model, now)

    def _load(self, desk: Desk, worker: WorkerState, model: str, now: float) -> bool:
        """Begins a load, or keeps its room until that has come and the loads before it are through."""
        busy_s = self._busy_s(desk, worker, model)
        if desk.fits(worker, model) and not busy_s:
            self._learning.began(desk, worker, spot(worker.id, model), now)
            desk.load(worker, model)
        else:
            if busy_s:
                self._look_again_s = min(self._look_again_s, now + busy_s)
            desk.unload(desk.evictions(worker, model))
            desk.expect(worker, model)
        return desk.join(model)

    def _busy_s(self, desk: Desk, worker: WorkerState, model: str) -> float:
        queued, node = desk.queue(worker.node_id), desk.nodes[worker.node_id]
        from_ = parts(node, desk.models[model])
        return max(queued.disk_s if from_.disk else 0.0, queued.network_s if from_.origin else 0.0)

    def _plan(self, desk: Desk, worker: WorkerState, model: str) -> tuple[float, Clearing] | None:
        """The cheapest moves that make room on a worker, and the seconds that they take one after another."""
        plans = {one.spot: self._destination(desk, one) for one in worker.residents if self._may_go(desk, one)}
        costs = [(one, plan.seconds) for one in worker.residents if (plan := plans.get(one.spot))]
        chosen = cheapest(costs, desk.missing_bytes(worker, model))
        if chosen is None:
            return None
        moves = ((one.spot, plan.to.id) for one in chosen[1] if (plan := plans[one.spot]))
        return chosen[0], Clearing(model, tuple(moves))

    def _destination(self, desk: Desk, victim: Resident) -> Migration | None:
        """Asked for by each that waits: as long as nothing more has been decided, the answer is the same."""
        if self._known_at != desk.changes:
            self._known, self._known_at = {}, desk.changes
        if victim.spot not in self._known:
            kept = self._claims.others("") | self._clearings.keys()
            self._known[victim.spot] = destination(desk, victim, kept)
        return self._known[victim.spot]

    def _may_go(self, desk: Desk, resident: Resident) -> bool:
        spots = {
            place for one in self._clearings.values() for source, to_id in one.moves for place in _ends(source, to_id)
        }
        return desk.untouched(resident) and resident.spot not in spots


def _ends(source: Spot, to_id: str) -> tuple[Spot, Spot]:
    return source, source._replace(worker_id=to_id)
