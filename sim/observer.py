"""The moment that a policy is shown, made from the live cluster."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from mesh.facts import ReplicaState
from sim.cluster import Cluster
from sim.nodes import Node, Replica, Worker
from sim.policy import ClusterState, LoadState, ModelState, NodeState, Resident, WorkerState
from sim.requests import Ongoing
from sim.running import Running
from sim.spec import ModelSpec

FIRST_GUESS_TOKENS = 128.0  # of an answer of a model that has not answered yet; assumed


class Observer:
    """Learns how long answers are from those that have ended; nothing is told before."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._models = MappingProxyType({name: _model(model) for name, model in cluster.models.items()})
        self._answers = dict.fromkeys(cluster.models, 0)
        self._means = dict.fromkeys(cluster.models, FIRST_GUESS_TOKENS)

    def answered(self, model: str, tokens: int) -> None:
        """An answer has ended, with so many tokens."""
        self._answers[model] += 1
        self._means[model] += (tokens - self._means[model]) / self._answers[model]

    def state(self, waiting: Iterable[Ongoing], running: Mapping[str, Ongoing]) -> ClusterState:
        """This moment. `running` has the placed requests by id."""
        nodes = tuple(self._node(node, running) for node in self._cluster.nodes.values())
        asked, means = tuple(one.waiting() for one in waiting), MappingProxyType(self._means)
        return ClusterState(asked, nodes, self._models, means, frozenset(self._cluster.prefetches))

    def _node(self, node: Node, running: Mapping[str, Ongoing]) -> NodeState:
        loads = (
            LoadState(spot, run.began_s, round(run.left_bytes))
            for spot, run in self._cluster.loads.items()
            if spot.worker_id in {worker.id for worker in node.workers}
        )
        return NodeState(
            id=node.id,
            store_id=node.store_id,
            workers=tuple(self._worker(worker, running) for worker in node.workers),
            dram=node.dram_pool.held,
            disk=node.disk_pool.held,
            dram_bytes_per_s=node.spec.dram_bytes_per_s,
            disk_bytes_per_s=node.spec.disk_bytes_per_s,
            origin_bytes_per_s=node.spec.origin_bytes_per_s,
            loads=tuple(loads),
        )

    def _worker(self, worker: Worker, running: Mapping[str, Ongoing]) -> WorkerState:
        residents = tuple(self._resident(worker, replica, running) for replica in worker.replicas.values())
        return WorkerState(worker.id, worker.node.id, worker.memory_bytes, residents, worker.kv_bytes, worker.slots)

    def _resident(self, worker: Worker, replica: Replica, running: Mapping[str, Ongoing]) -> Resident:
        load = self._cluster.loads.get(replica.spot)
        mean = self._means[replica.spot.model]
        return Resident(
            spot=replica.spot,
            state=replica.state,
            bytes=replica.bytes,
            slots=replica.slots,
            running=Running(worker, replica, running, mean) if replica.running else (),
            idle_since_s=replica.idle_since_s,
            ready_at_s=load.ready_at_s if load and replica.state is ReplicaState.LOADING else None,
        )


def _model(model: ModelSpec) -> ModelState:
    return ModelState(model.name, model.bytes, model.init_s, model.costs.prefill_token_s)
