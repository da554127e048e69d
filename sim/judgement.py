"""Our own policy in the simulator: the very `decide` of the scheduler's loop, on the very view that its books build."""

from collections.abc import Iterable
from functools import lru_cache

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
from policy.actions import Place
from policy.books import Books
from policy.decide import decide
from policy.knobs import Knobs
from policy.view import Spot, Waiting
from sim.policy import ClusterState, ModelState, NodeState, Plan, Resident, WorkerState


class Judgement:
    """What services.scheduler does around `decide`, without the waiting."""

    name = "whimbrel"

    def __init__(self, knobs: Knobs) -> None:
        self._knobs, self._books = knobs, Books()
        self._entries: dict[str, ModelEntry] = {}

    def decide(self, state: ClusterState, now: float) -> Plan:
        """The policy's decision."""
        if not self._entries:
            self._entries = {name: entry(model) for name, model in state.models.items()}
        books, residents = self._books, list(state.residents())
        books.loading = {one.spot for one in residents if one.state is ReplicaState.LOADING}
        books.unloading = {one.spot for one in residents if one.state is ReplicaState.DRAINING}
        books.copying.under_way = set(state.prefetches)
        placed = {one.spot: len(one.running) for one in residents if one.running}
        waiting = (Waiting(one.id, one.model, one.since_s) for one in state.waiting)
        decision = decide(books.view(self._facts(state), waiting, placed, now), now, self._knobs)
        for action in decision.actions:
            if isinstance(action, Place):
                books.used(action.spot)
        return Plan(decision.actions, decision.look_again_s)

    def _facts(self, state: ClusterState) -> ClusterFacts:
        """Of checkpoints in stores, those that somebody waits for: no others are looked at."""
        wanted = sorted({one.model for one in state.waiting} & state.models.keys())
        stores = (store(node, [state.models[name] for name in wanted]) for node in state.nodes)
        members = (*stores, *(worker(one) for one in state.workers()))
        return ClusterFacts({f"{member.kind}/{member.id}": member for member in members}, self._entries)


def entry(model: ModelState) -> ModelEntry:
    """The catalogue's, of a model with one version."""
    version = CheckpointSummary(model.name, model.bytes, "", "", 0, 0, 0, 0, runner=RunnerKind.PACKED)
    return ModelEntry(model.name, version, "", keep_alive_s=None, created_s=0.0, updated_s=0.0)


def worker(one: WorkerState) -> Member:
    """What it would publish."""
    facts = WorkerFacts("cuda", one.memory_bytes, one.kv_bytes, one.slots, tuple(map(_replica, one.residents)))
    return Member(Kind.WORKER, one.id, one.node_id, one.id, worker=facts)


def store(node: NodeState, models: Iterable[ModelState]) -> Member:
    """What its store would publish; an origin has everything."""
    held = (_checkpoint(node, model) for model in models)
    facts = StoreFacts(0, 0, 0, tuple(one for one in held if one.disk_bytes or one.dram_bytes), origins=1)
    return Member(Kind.STORE, node.store_id, node.id, node.store_id, store=facts)


def _checkpoint(node: NodeState, model: ModelState) -> CheckpointFacts:
    disk, dram = node.disk.get(model.name, 0), node.dram.get(model.name, 0)
    tier = Tier.DRAM if dram == model.bytes else Tier.DISK if disk == model.bytes else Tier.ORIGIN
    return CheckpointFacts(model.name, model.bytes, tier, disk, dram)


def _replica(one: Resident) -> ReplicaFacts:
    return _replica_facts(one.spot, one.state, one.bytes, len(one.running))


@lru_cache(maxsize=65536)
def _replica_facts(spot: Spot, state: ReplicaState, size_bytes: int, running: int) -> ReplicaFacts:
    return ReplicaFacts(spot.model, spot.digest, state, size_bytes, running, runner=RunnerKind.PACKED)
