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


class Published:
    """One cluster's facts; as long as nothing changes, they are the same object. How many requests a replica has is
    what the books know themselves, and sooner."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeState] = {}
        self._workers: dict[str, WorkerState] = {}
        self._facts: ClusterFacts | None = None

    def facts(self, state: ClusterState) -> ClusterFacts:
        """Of this moment."""
        last = self._facts
        if last and last.drains == state.drains and self._is_as_it_was(state):
            return last
        models = last.models if last else MappingProxyType({name: entry(one) for name, one in state.models.items()})
        members = dict(last.members) if last else {}
        for node in state.nodes:
            self._note(node, state.models, members)
        if len(members) != sum([1 + len(node.workers) for node in state.nodes]):
            self._forget(state, members)
        self._nodes = {node.id: node for node in state.nodes}
        if last and last.drains == state.drains and members == last.members:
            return last
        self._facts = ClusterFacts(MappingProxyType(members), models, drains=state.drains)
        return self._facts

    def _is_as_it_was(self, state: ClusterState) -> bool:
        same = len(state.nodes) == len(self._nodes)
        return same and all(self._nodes.get(node.id) is node for node in state.nodes)

    def _note(self, node: NodeState, models: Mapping[str, ModelState], members: dict[str, Member]) -> None:
        last = self._nodes.get(node.id)
        if last is node:
            return
        if last is None or last.dram is not node.dram or last.disk is not node.disk:
            members[f"{Kind.STORE}/{node.store_id}"] = store(node, models)
        for one in node.workers:
            if self._workers.get(one.id) is not one:
                self._workers[one.id] = one
                self._note_worker(one, members)

    def _note_worker(self, one: WorkerState, members: dict[str, Member]) -> None:
        key = f"{Kind.WORKER}/{one.id}"
        replicas = tuple([_replica(resident.spot, resident.state, resident.bytes) for resident in one.residents])
        last = members.get(key)
        if last is None or last.worker is None or last.worker.replicas != replicas:
            facts = WorkerFacts("cuda", one.memory_bytes, one.kv_bytes, one.slots, replicas)
            members[key] = Member(Kind.WORKER, one.id, one.node_id, one.id, worker=facts)

    def _forget(self, state: ClusterState, members: dict[str, Member]) -> None:
        """What has failed."""
        stores = {f"{Kind.STORE}/{node.store_id}" for node in state.nodes}
        workers = {one.id for one in state.workers()}
        for key in [key for key, one in members.items() if one.store and key not in stores]:
            del members[key]
        for gone in self._workers.keys() - workers:
            del self._workers[gone], members[f"{Kind.WORKER}/{gone}"]


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
