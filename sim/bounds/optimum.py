"""The best that can be done on a tiny case, by trying everything.

Each run of the simulator makes the choices that it is told, and those after them for the first time, until all have
been made.

Tried are: which slot, which worker to load on, what of its unused replicas to unload for it, and to wait. A request
that finds a slot takes one, and one that a load under way has a slot for joins it. Nothing is moved, stopped or
loaded ahead.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations

from sim.baselines.claims import Claims
from sim.baselines.desk import Desk
from sim.outcome import Run
from sim.policy import ClusterState, Plan, Resident, WorkerState
from sim.request import Request
from sim.run import simulate
from sim.spec import ClusterSpec

MOST_RUNS = 20_000


class Hopeless(Exception):
    """The run under way cannot be the best any more."""


class Guided:
    """Makes the choices that it is told, then always the first. `made` and `of` are each choice, and of how many."""

    name = "optimum"

    def __init__(self, told: Sequence[int], best_s: float) -> None:
        self._told, self._best_s = told, best_s
        self.made: list[int] = []
        self.of: list[int] = []
        self._claims = Claims()
        self._waited_s: dict[str, float] = {}  # of all that have come, up to their place

    def decide(self, state: ClusterState, now: float) -> Plan:
        """Hopeless as soon as those that have come have waited longer than all of the best run."""
        self._waited_s |= {request.id: now - request.arrived_s for request in state.waiting}
        if sum(self._waited_s.values()) >= self._best_s:
            raise Hopeless
        desk, blocked = Desk(state), set[str]()
        self._claims.go_on(desk)
        for request in state.waiting:
            if open_ := desk.open(request.model):
                desk.place(request, open_[self._choose(len(open_))])
            elif request.model not in blocked and not desk.join(request.model):
                choices = self._starts(desk, request.model)
                if chosen := self._choose(len(choices) + 1):
                    choices[chosen - 1]()
                    desk.join(request.model)
                else:
                    blocked.add(request.model)
        return Plan(tuple(desk.actions))

    def _choose(self, count: int) -> int:
        """Waiting, the choice 0, is tried last."""
        number = len(self.made)
        self.made.append(self._told[number] if number < len(self._told) else count - 1)
        self.of.append(count)
        return self.made[-1]

    def _starts(self, desk: Desk, model: str) -> list[Callable[[], None]]:
        found = dict[tuple[object, ...], Callable[[], None]]()  # workers that are alike are tried once
        for worker in desk.elsewhere(model):
            if worker.id in self._claims.others(model):
                continue
            for evicted in _evictions(desk, worker, model):
                alike = (worker.node_id, tuple((one.spot.model, one.state) for one in worker.residents), evicted)
                found.setdefault(alike[:2] if not evicted else alike, self._start(desk, worker, model, evicted))
        return list(found.values())

    def _start(self, desk: Desk, worker: WorkerState, model: str, evicted: tuple[Resident, ...]) -> Callable[[], None]:
        def begin() -> None:
            if desk.fits(worker, model):
                desk.load(worker, model)
            else:
                desk.unload(evicted)
                self._claims.add(worker, model)
                desk.expect(worker, model)

        return begin


def _evictions(desk: Desk, worker: WorkerState, model: str) -> list[tuple[Resident, ...]]:
    """The smallest sets of unused replicas that make room; one empty set if there is some."""
    unused, missing = desk.idle(worker), desk.missing_bytes(worker, model)
    sets = [some for count in range(len(unused) + 1) for some in combinations(unused, count)]
    enough = [some for some in sets if sum(one.bytes for one in some) >= missing]
    return [some for some in enough if not any(set(other) < set(some) for other in enough)]


def optimum(spec: ClusterSpec, requests: Sequence[Request], most_runs: int = MOST_RUNS) -> Run:
    """The run with the least mean latency. ValueError for a case that takes more than `most_runs` to know."""
    best: Run | None = None
    told, best_s = list[int](), math.inf
    for _ in range(most_runs):
        policy = Guided(told, best_s)
        try:
            run = simulate(spec, requests, policy)
        except Hopeless:
            pass
        else:
            total_s = _total_s(run)
            best, best_s = (run, total_s) if total_s < best_s else (best, best_s)
        told = policy.made
        while told and told[-1] == 0:
            told.pop()
        if not told:
            break
        told[-1] -= 1
    else:
        raise ValueError(f"the case takes more than {most_runs} runs: take fewer requests or workers")
    if best is None:
        raise ValueError("the requests cannot all be answered")
    return best


def _total_s(run: Run) -> float:
    return math.inf if any(one.lost for one in run.outcomes) else sum(one.latency_s or 0.0 for one in run.outcomes)
