"""A large cluster on paper, whose workers do what is decided: what decisions are timed on."""

import gc
import heapq
import itertools
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from time import process_time

from benchmarks.scheduling.members import MEMORY_BYTES, SLOTS, model, replica, stores, worker
from mesh.facts import ClusterFacts, Kind, ReplicaFacts, ReplicaState
from mesh.garbage import spare_requests
from policy.actions import Load, Place, Refuse, Unload, Yield
from policy.books import Books
from policy.decide import decide
from policy.knobs import Knobs
from policy.view import Spot, Waiting

WORKERS_A_NODE = 8
LOAD_S, UNLOAD_S, ANSWER_S = 5.0, 0.3, 10.0  # on average
Told = Callable[[], None]  # something that the books are told
KNOBS = Knobs(hold_s=1e9, keep_alive_s=1e9)


class Fleet:
    """Keeps the facts as a mirror would, tells the books of each event, and times what the scheduler does at it."""

    def __init__(self, workers: int, models: int, seed: int) -> None:
        self.books, self.now_s, self.rng = Books(), 0.0, random.Random(seed)
        self.took_s: list[float] = []  # of each decision, with its bookkeeping
        self.done: Counter[str] = Counter()  # actions, by name
        self._numbers = itertools.count()
        self._coming: list[tuple[float, int, Callable[[], list[Told]]]] = []
        self.models = {name: model(name, number) for number, name in enumerate(f"m{n:05}" for n in range(models))}
        nodes = [f"n{number // WORKERS_A_NODE}" for number in range(workers)]
        self._members = {f"worker/w{number}": worker(f"w{number}", node) for number, node in enumerate(nodes)}
        self._members |= {f"store/{one.id}": one for one in stores(list(dict.fromkeys(nodes)), self.models, self.rng)}

    def fill(self, share: float, *, idle: bool) -> None:
        """Has workers hold replicas of models, by turns, until so much of each one's memory is taken. Busy ones have a
        request in each slot, which ends as answers do."""
        models = itertools.cycle(self.models.values())
        for key, member in self._members.items():
            if member.worker:
                replicas: list[ReplicaFacts] = []
                while (one := replica(next(models))).bytes + sum(r.bytes for r in replicas) <= share * MEMORY_BYTES:
                    replicas.append(one)
                self._members[key] = replace(member, worker=replace(member.worker, replicas=tuple(replicas)))
        self.books.observe(self._facts())
        seats = list(self.books.index.replicas.everywhere())
        for seat in [] if idle else seats:
            for _ in range(SLOTS):
                self._sit(str(next(self._numbers)), seat.spot)
        self.books.view(self.now_s)
        gc.unfreeze()  # what another fleet has left
        spare_requests()  # as in the scheduler's process

    def books_bytes(self) -> int:
        """Memory that books of these facts take beside the facts themselves, as Python counts it; nobody waits, and
        nothing has been learnt."""
        facts, books = self._facts(), Books()
        tracemalloc.start()
        books.observe(facts)
        books.view(self.now_s)
        taken_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return taken_bytes

    def resident(self) -> list[str]:
        """Models that have a replica."""
        return sorted({seat.spot.model for seat in self.books.index.replicas.everywhere()})

    def ask(self, model: str) -> None:
        """A request comes, and the scheduler decides."""
        self._decide([self._arrival(model)])

    def step(self) -> bool:
        """What comes next, comes, and the scheduler decides at each thing that it is told. False when nothing does."""
        if not self._coming:
            return False
        self.now_s, _, event = heapq.heappop(self._coming)
        for one in event():
            self._decide([one])
        return True

    def advance(self, seconds: float) -> None:
        """Time passes, and what comes meanwhile, comes."""
        until_s = self.now_s + seconds
        while self._coming and self._coming[0][0] <= until_s:
            self.step()
        self.now_s = until_s

    def wake(self, models: Iterable[str], seconds: float) -> None:
        """Time passes; then what has come meanwhile, requests for these models among it, is told in one go, and the
        scheduler decides once."""
        self.now_s += seconds
        told = [self._arrival(model) for model in models]
        while self._coming and self._coming[0][0] <= self.now_s:
            _, _, event = heapq.heappop(self._coming)
            told += event()
        self._decide(told)

    def _arrival(self, model: str) -> Told:
        request = Waiting(str(next(self._numbers)), model, self.now_s)
        return partial(self.books.arrived, request)

    def _decide(self, told: Iterable[Told]) -> None:
        """One wake of the scheduler's loop: what has happened is told, the decision made, and what it says told."""
        began_s = process_time()
        for tell in told:
            tell()
        decision = decide(self.books.view(self.now_s), self.now_s, KNOBS)
        for action in decision.actions:
            match action:
                case Place(number, spot):
                    self.books.placed(number, spot, self.now_s)
                case Refuse(number):
                    self.books.left(number, self.now_s)
                case Load():
                    self.books.load_began(action, self.now_s)
                case Unload(spot):
                    self.books.unload_began(spot)
                case Yield(spots, to):
                    self.books.yielding.add(spots, to)
        self.books.claimed(decision.claims)
        self.books.look_again(decision.again)
        self.took_s.append(process_time() - began_s)
        for action in decision.actions:
            self.done[type(action).__name__] += 1
            match action:
                case Place(number, spot):
                    self._runs(number, spot)
                case Load(spot):
                    self._after(LOAD_S, partial(self._loaded, spot))
                case Unload(spot):
                    self._after(UNLOAD_S, partial(self._unloaded, spot))

    def _loaded(self, spot: Spot) -> list[Told]:
        """The facts show it first; then the load's own stream ends."""
        facts = self._with(spot, ReplicaState.READY)
        return [partial(self.books.observe, facts), partial(self.books.load_ended, spot, self.now_s)]

    def _unloaded(self, spot: Spot) -> list[Told]:
        return [partial(self.books.observe, self._with(spot, None)), partial(self.books.unload_ended, spot)]

    def _sit(self, number: str, spot: Spot) -> None:
        self.books.placed(number, spot, self.now_s)
        self._runs(number, spot)

    def _runs(self, number: str, spot: Spot) -> None:
        self._after(self.rng.expovariate(1 / ANSWER_S), lambda: [partial(self.books.left, number, self.now_s)])

    def _after(self, delay_s: float, event: Callable[[], list[Told]]) -> None:
        heapq.heappush(self._coming, (self.now_s + delay_s, next(self._numbers), event))

    def _with(self, spot: Spot, state: ReplicaState | None) -> ClusterFacts:
        """The facts, with a replica in another state, or without it."""
        key = f"{Kind.WORKER}/{spot.worker_id}"
        member = self._members[key]
        assert member.worker
        others = tuple(one for one in member.worker.replicas if one.model != spot.model)
        here = (replace(replica(self.models[spot.model]), state=state),) if state else ()
        self._members[key] = replace(member, worker=replace(member.worker, replicas=(*others, *here)))
        return self._facts()

    def _facts(self) -> ClusterFacts:
        return ClusterFacts(dict(self._members), self.models)
