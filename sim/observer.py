"""The moment that a policy is shown, made from the live cluster. What has not changed is the same object again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mesh.facts import ReplicaState
from sim.cluster import Cluster
from sim.engine import Engine
from sim.nodes import Node, Replica, Worker
from sim.policy import ClusterState, LoadState, ModelState, NodeState, Resident, WorkerState
from sim.requests import Ongoing
from sim.running import Running
from sim.spec import ModelSpec

FIRST_GUESS_TOKENS = 128.0  # of an answer of a model that has not answered yet; assumed


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker as it was shown last, and after which changes of its own and of its node's traffic."""

    worker: Worker
    changes: tuple[int, int]
    state: WorkerState


@dataclass(frozen=True, slots=True)
class SeenNode:
    """A node as it was shown last, and after which changes of its workers and its traffic."""

    changes: tuple[int, int]
    state: NodeState


class Observer:
    """Learns how long answers are from those that have ended; nothing is told before."""

    def __init__(self, engine: Engine, cluster: Cluster) -> None:
        self._engine, self._cluster = engine, cluster
        self._models = MappingProxyType({name: _model(model) for name, model in cluster.models.items()})
        self._answers = dict.fromkeys(cluster.models, 0)
        self._means = dict.fromkeys(cluster.models, FIRST_GUESS_TOKENS)
        self._mean_tokens = MappingProxyType(self._means)
        self._workers: dict[str, Seen] = {}
        self._nodes: dict[str, SeenNode] = {}

    def answered(self, model: str, tokens: int) -> None:
        """An answer has ended, with so many tokens."""
        self._answers[model] += 1
        self._means[model] += (tokens - self._means[model]) / self._answers[model]

    def state(self, waiting: Iterable[Ongoing], running: Mapping[str, Ongoing]) -> ClusterState:
        """This moment. `running` has the placed requests by id."""
        nodes = tuple([self._node(node, running) for node in self._cluster.nodes.values()])
        asked, prefetches = tuple([one.waiting() for one in waiting]), frozenset(self._cluster.prefetches)
        drains = self._cluster.drains
        return ClusterState(asked, nodes, self._models, self._mean_tokens, prefetches, drains)

    def _node(self, node: Node, running: Mapping[str, Ongoing]) -> NodeState:
        changes, seen = (node.changes, node.traffic.changes), self._nodes.get(node.id)
        if seen and seen.changes == changes and not seen.state.loads and _same_pools(node, seen.state):
            return seen.state
        state = self._node_state(node, running)
        self._nodes[node.id] = SeenNode(changes, state)
        return state

    def _node_state(self, node: Node, running: Mapping[str, Ongoing]) -> NodeState:
        return NodeState(
            id=node.id,
            store_id=node.store_id,
            workers=tuple([self._worker(worker, running) for worker in node.workers]),
            dram=node.dram_pool.held,
            disk=node.disk_pool.held,
            dram_bytes_per_s=node.spec.dram_bytes_per_s,
            disk_bytes_per_s=node.spec.disk_bytes_per_s,
            origin_bytes_per_s=node.spec.origin_bytes_per_s,
            loads=self._loads(node),
            dram_capacity_bytes=node.spec.dram_bytes,
            disk_capacity_bytes=node.spec.disk_bytes,
        )

    def _loads(self, node: Node) -> tuple[LoadState, ...]:
        mine = {worker.id for worker in node.workers} if self._cluster.loads else ()
        return tuple(
            LoadState(spot, run.began_s, round(run.left_bytes))
            for spot, run in self._cluster.loads.items()
            if spot.worker_id in mine
        )

    def _worker(self, worker: Worker, running: Mapping[str, Ongoing]) -> WorkerState:
        changes, seen = (worker.changes, worker.node.traffic.changes), self._workers.get(worker.id)
        if seen and seen.worker is worker and seen.changes == changes:
            return seen.state
        residents = tuple(self._resident(worker, replica, running) for replica in worker.replicas.values())
        state = WorkerState(worker.id, worker.node.id, worker.memory_bytes, residents, worker.kv_bytes, worker.slots)
        self._workers[worker.id] = Seen(worker, changes, state)
        return state

    def _resident(self, worker: Worker, replica: Replica, running: Mapping[str, Ongoing]) -> Resident:
        load = self._cluster.loads.get(replica.spot)
        return Resident(
            spot=replica.spot,
            state=replica.state,
            bytes=replica.bytes,
            slots=replica.slots,
            running=Running(self._engine, worker, replica, running, self._means) if replica.running else (),
            idle_since_s=replica.idle_since_s,
            ready_at_s=load.ready_at_s if load and replica.state is ReplicaState.LOADING else None,
            request_ids=tuple(replica.running),
        )


def _same_pools(node: Node, state: NodeState) -> bool:
    return state.dram is node.dram_pool.held and state.disk is node.disk_pool.held


def _model(model: ModelSpec) -> ModelState:
    return ModelState(model.name, model.bytes, model.init_s, model.costs.prefill_token_s, model.kv_bytes_per_token)
