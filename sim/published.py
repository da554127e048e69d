"""What the simulated cluster's members would publish: facts, anew only for what has changed since the last moment."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

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
from policy.view import Spot
from sim.policy import ClusterState, ModelState, NodeState, WorkerState

NOBODY: Mapping[str, Member] = {}


class Published:
    """One cluster's facts; as long as nothing changes, they are the same object. How many requests a replica has is
    what the books know themselves, and sooner."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeState] = {}
        self._workers: dict[str, WorkerState] = {}
        self._facts: ClusterFacts | None = None

    def facts(self, state: ClusterState) -> ClusterFacts:
        """Of this moment."""
        last = self._facts or ClusterFacts(NOBODY, _catalogue(state), drains=state.drains)
        news = self._news(state, last.members)
        members = {**last.members, **news} if news else last.members
        if len(members) != sum([1 + len(node.workers) for node in state.nodes]):
            members = self._without_gone(state, members)
        if members is not last.members or last.drains != state.drains:
            last = ClusterFacts(MappingProxyType(members), last.models, drains=state.drains)
        self._facts = last
        return last

    def _news(self, state: ClusterState, before: Mapping[str, Member]) -> dict[str, Member]:
        news = dict[str, Member]()
        for node in state.nodes:
            if self._nodes.get(node.id) is not node:
                self._note(node, state.models, before, news)
                self._nodes[node.id] = node
        return news

    def _note(
        self, node: NodeState, models: Mapping[str, ModelState], before: Mapping[str, Member], news: dict[str, Member]
    ) -> None:
        last = self._nodes.get(node.id)
        if last is None or last.dram is not node.dram or last.disk is not node.disk:
            key, holds = f"{Kind.STORE}/{node.store_id}", store(node, models)
            if before.get(key) != holds:
                news[key] = holds
        for one in node.workers:
            if self._workers.get(one.id) is not one:
                self._workers[one.id] = one
                self._note_worker(one, before, news)

    def _note_worker(self, one: WorkerState, before: Mapping[str, Member], news: dict[str, Member]) -> None:
        key = f"{Kind.WORKER}/{one.id}"
        replicas = tuple([_replica(resident.spot, resident.state, resident.bytes) for resident in one.residents])
        last = before.get(key)
        if last is None or last.worker is None or last.worker.replicas != replicas:
            facts = WorkerFacts("cuda", one.memory_bytes, one.kv_bytes, one.slots, replicas)
            news[key] = Member(Kind.WORKER, one.id, one.node_id, one.id, worker=facts)

    def _without_gone(self, state: ClusterState, members: Mapping[str, Member]) -> dict[str, Member]:
        """What has not failed."""
        self._nodes = {node.id: node for node in state.nodes}
        self._workers = {one.id: one for one in state.workers()}
        stores = {f"{Kind.STORE}/{node.store_id}" for node in state.nodes}
        there = stores | {f"{Kind.WORKER}/{name}" for name in self._workers}
        return {key: one for key, one in members.items() if key in there}


def _catalogue(state: ClusterState) -> Mapping[str, ModelEntry]:
    return MappingProxyType({name: entry(one) for name, one in state.models.items()})


def entry(model: ModelState) -> ModelEntry:
    """The catalogue's, of a model with one version."""
    version = CheckpointSummary(
        model.name, model.bytes, "", "", 0, 0, 0, model.kv_bytes_per_token, runner=RunnerKind.PACKED
    )
    return ModelEntry(model.name, version, "", keep_alive_s=None, created_s=0.0, updated_s=0.0)


def store(node: NodeState, models: Mapping[str, ModelState]) -> Member:
    """What its store would publish; an origin has everything."""
    names = node.disk.keys() | node.dram.keys()
    held = [_checkpoint(n, models[n].bytes, node.disk.get(n, 0), node.dram.get(n, 0)) for n in sorted(names)]
    facts = StoreFacts(
        disk_used_bytes=sum(node.disk.values()),
        dram_capacity_bytes=node.dram_capacity_bytes,
        dram_used_bytes=sum(node.dram.values()),
        checkpoints=tuple(held),
        disk_capacity_bytes=node.disk_capacity_bytes,
        origins=1,
    )
    return Member(Kind.STORE, node.store_id, node.id, node.store_id, store=facts)


@lru_cache(maxsize=65536)
def _checkpoint(model: str, size_bytes: int, disk: int, dram: int) -> CheckpointFacts:
    tier = Tier.DRAM if dram == size_bytes else Tier.DISK if disk == size_bytes else Tier.ORIGIN
    return CheckpointFacts(model, size_bytes, tier, disk, dram)


@lru_cache(maxsize=65536)
def _replica(spot: Spot, state: ReplicaState, size_bytes: int) -> ReplicaFacts:
    return ReplicaFacts(spot.model, spot.digest, state, size_bytes, runner=RunnerKind.PACKED)
