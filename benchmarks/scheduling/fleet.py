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

from mesh.facts import (
    CheckpointFacts,
    CheckpointSummary,
    ClusterFacts,
    Kind,
    Member,
    ModelEntry,
    ReplicaFacts,
    ReplicaState,
    RunnerKind,
    StoreFacts,
    Tier,
    WorkerFacts,
)
from policy.actions import Load, Place, Refuse, Unload
from policy.books import Books
from policy.decide import decide
from policy.knobs import Knobs
from policy.view import Spot, Waiting

GB = 10**9
MEMORY_BYTES, KV_BYTES, SLOTS = 80 * GB, 2 * GB, 8
WEIGHTS_BYTES = (6 * GB, 8 * GB, 13 * GB, 16 * GB)  # of models, by turns
WORKERS_A_NODE, COPIES = 8, 4  # copies: stores that have a checkpoint on disk
LOAD_S, UNLOAD_S, ANSWER_S = 5.0, 0.3, 10.0  # on average
KNOBS = Knobs(hold_s=1e9, keep_alive_s=1e9)


class Fleet:
    """Keeps the facts as a mirror would, tells the books of each event, and times what the scheduler does at it."""

    def __init__(self, workers: int, models: int, seed: int) -> None:
        self.books, self.now_s, self.rng = Books(), 0.0, random.Random(seed)
        self.took_s: list[float] = []  # of each decision, with its bookkeeping
        self.done: Counter[str] = Counter()  # actions, by name
        self._numbers = itertools.count()
        self._coming: list[tuple[float, int, Callable[[], None]]] = []
        self.models = {name: _model(name, number) for number, name in enumerate(f"m{n:05}" for n in range(models))}
        nodes = [f"n{number // WORKERS_A_NODE}" for number in range(workers)]
        self._members = {f"worker/w{number}": _worker(f"w{number}", node) for number, node in enumerate(nodes)}
        self._members |= {f"store/{one.id}": one for one in _stores(list(dict.fromkeys(nodes)), self.models, self.rng)}

    def fill(self, share: float, *, idle: bool) -> None:
        """Has workers hold replicas of models, by turns, until so much of each one's memory is taken. Busy ones have a
        request in each slot, which ends as answers do."""
        models = itertools.cycle(self.models.values())
        for key, member in self._members.items():
            if member.worker:
                replicas: list[ReplicaFacts] = []
                while (one := _replica(next(models))).bytes + sum(r.bytes for r in replicas) <= share * MEMORY_BYTES:
                    replicas.append(one)
                self._members[key] = replace(member, worker=replace(member.worker, replicas=tuple(replicas)))
        self.books.observe(self._facts())
        seats = list(self.books.index.replicas.everywhere())
        for seat in [] if idle else seats:
            for _ in range(SLOTS):
                self._sit(str(next(self._numbers)), seat.spot)
        self.books.view(self.now_s)
        _spare_decisions_from_collections()

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
        request = Waiting(str(next(self._numbers)), model, self.now_s)
        self._timed(partial(self.books.arrived, request))

    def step(self) -> bool:
        """What comes next, comes, and the scheduler decides. False when nothing does."""
        if not self._coming:
            return False
        self.now_s, _, event = heapq.heappop(self._coming)
        event()
        return True

    def advance(self, seconds: float) -> None:
        """Time passes, and what comes meanwhile, comes."""
        until_s = self.now_s + seconds
        while self._coming and self._coming[0][0] <= until_s:
            self.step()
        self.now_s = until_s

    def _timed(self, event: Callable[[], None]) -> None:
        """One wake of the scheduler's loop: what has happened is told, the decision made, and what it says told."""
        began_s = process_time()
        event()
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
        self.books.claimed(decision.claims)
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

    def _loaded(self, spot: Spot) -> None:
        """The facts show it first; then the load's own stream ends."""
        self._timed(partial(self.books.observe, self._with(spot, ReplicaState.READY)))
        self._timed(partial(self.books.load_ended, spot, self.now_s))

    def _unloaded(self, spot: Spot) -> None:
        self._timed(partial(self.books.observe, self._with(spot, None)))
        self._timed(partial(self.books.unload_ended, spot))

    def _sit(self, number: str, spot: Spot) -> None:
        self.books.placed(number, spot, self.now_s)
        self._runs(number, spot)

    def _runs(self, number: str, spot: Spot) -> None:
        self._after(
            self.rng.expovariate(1 / ANSWER_S), partial(self._timed, lambda: self.books.left(number, self.now_s))
        )

    def _after(self, delay_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._coming, (self.now_s + delay_s, next(self._numbers), event))

    def _with(self, spot: Spot, state: ReplicaState | None) -> ClusterFacts:
        """The facts, with a replica in another state, or without it."""
        key = f"{Kind.WORKER}/{spot.worker_id}"
        member = self._members[key]
        assert member.worker
        others = tuple(one for one in member.worker.replicas if one.model != spot.model)
        here = (replace(_replica(self.models[spot.model]), state=state),) if state else ()
        self._members[key] = replace(member, worker=replace(member.worker, replicas=(*others, *here)))
        return self._facts()

    def _facts(self) -> ClusterFacts:
        return ClusterFacts(dict(self._members), self.models)


def _spare_decisions_from_collections() -> None:
    """What was set up is not looked through for cycles while decisions are timed, as in the scheduler's process."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _model(name: str, number: int) -> ModelEntry:
    weights = WEIGHTS_BYTES[number % len(WEIGHTS_BYTES)]
    version = CheckpointSummary(name, weights, "LlamaForCausalLM", "bfloat16", 4096, 34, 300, 131072)
    return ModelEntry(name, replace(version, runner=RunnerKind.PACKED), "", None, created_s=0.0, updated_s=0.0)


def _replica(entry: ModelEntry) -> ReplicaFacts:
    return ReplicaFacts(entry.name, entry.checkpoint.digest, ReplicaState.READY, entry.checkpoint.bytes + KV_BYTES)


def _worker(worker_id: str, node: str) -> Member:
    return Member(Kind.WORKER, worker_id, node, worker_id, 1, worker=WorkerFacts("cuda", MEMORY_BYTES, KV_BYTES, SLOTS))


def _stores(nodes: list[str], models: dict[str, ModelEntry], rng: random.Random) -> Iterable[Member]:
    held: dict[str, list[CheckpointFacts]] = {node: [] for node in nodes}
    for entry in models.values():
        size = entry.checkpoint.bytes
        for node in rng.sample(nodes, min(COPIES, len(nodes))):
            held[node].append(CheckpointFacts(entry.checkpoint.digest, size, Tier.DISK, size))
    for node, checkpoints in held.items():
        yield Member(Kind.STORE, f"s-{node}", node, node, 1, store=StoreFacts(0, 0, 0, tuple(checkpoints)))
