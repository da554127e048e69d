"""ServerlessLLM as released (0.8.0, November 2025), with its defaults.

Each model's router takes its requests one at a time, and sleeps a second before each look at its instances, two after
one that was in use; once a second it adds an instance where requests, each of which is to have its own, are more than
instances, up to ten, or ends one where they are fewer. The scheduler ticks once a second, too: what is first in any
model's queue comes first, and gets a free device of the node where the checkpoint's bytes take least at constant
rates. An instance has a device to itself. Migration is off by default, and does not work. Given beside that: first
tokens count, though nothing is streamed; what no disk has comes from the origin, instead of never; nothing in use is
ended.
"""

from collections import Counter, defaultdict

from mesh.facts import ReplicaState
from policy.actions import UnloadReason
from sim.baselines.desk import Desk
from sim.policy import ClusterState, Plan, WaitingRequest, WorkerState

LOOK_S = 1.0  # all loops sleep for so long
MOST_INSTANCES = 10


class Released:
    """Remembers when each router looks next, whose turn is next, and which instances have no device yet."""

    name = "released"

    def __init__(self) -> None:
        self._looks_s: dict[str, float] = {}  # by model with requests
        self._turns = Counter[str]()
        self._starting: list[tuple[int, str]] = []  # place in the model's queue, and model
        self._tick_s = 0.0

    def decide(self, state: ClusterState, now: float) -> Plan:
        """Does nothing but refuse between the moments at which some loop wakes."""
        desk, queues = Desk(state), defaultdict[str, list[WaitingRequest]](list)
        for request in state.waiting:
            if request.model in desk.models:
                queues[request.model].append(request)
            else:
                desk.refuse(request)
        self._looks_s = {model: self._looks_s.get(model, now + LOOK_S) for model in queues}
        for model in [model for model, look_s in self._looks_s.items() if look_s <= now]:
            self._look(desk, model, queues[model][0], now)
        if self._tick_s <= now:
            self._tick_s = now + LOOK_S
            self._scale(desk, queues)
            self._schedule(desk)
        active = bool(queues or self._starting or any(worker.residents for worker in desk.workers.values()))
        return Plan(tuple(desk.actions), min([*self._looks_s.values(), self._tick_s]) if active else None)

    def _look(self, desk: Desk, model: str, request: WaitingRequest, now: float) -> None:
        """One request, one instance, in turn: if that is in use, the next look is later."""
        self._looks_s[model] = now + LOOK_S
        if ready := desk.ready(model):
            instance = ready[self._turns[model] % len(ready)]
            self._turns[model] += 1
            if desk.unused(instance):
                desk.place(request, instance)
            else:
                self._looks_s[model] += LOOK_S

    def _scale(self, desk: Desk, queues: dict[str, list[WaitingRequest]]) -> None:
        """Requests against instances, those on their way included."""
        requests = Counter({model: len(waiting) for model, waiting in queues.items()})
        there, starting = Counter[str](), Counter(model for _, model in self._starting)
        for one in desk.state.residents():
            requests[one.spot.model] += len(one.running)
            there[one.spot.model] += one.state is not ReplicaState.DRAINING
        for model in sorted(requests):
            wanted = min(MOST_INSTANCES, requests[model])
            if wanted > there[model] + starting[model]:
                self._starting.append((starting[model], model))
            elif wanted < there[model] + starting[model]:
                unused = [one for one in desk.ready(model) if desk.unused(one)]
                desk.unload(unused[-1:], UnloadReason.IDLE)

    def _schedule(self, desk: Desk) -> None:
        """A stable sort by the place in each model's own queue: not by age."""
        left = list[tuple[int, str]]()
        for place, model in sorted(self._starting, key=lambda one: one[0]):
            free = [one for one in desk.elsewhere(model) if desk.free_bytes(one) == one.memory_bytes]
            if free:
                desk.load(min(free, key=lambda one: _rank(desk, one, model)), model)
            else:
                left.append((place, model))
        self._starting = left


def _rank(desk: Desk, worker: WorkerState, model: str) -> tuple[float, str]:
    return desk.load_s(worker, model), worker.id
