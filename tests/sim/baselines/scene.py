"""Moments to show to a policy. Weights take 10 bytes, a pool 2; a node's disk gives 1 byte a second, its origin half of
that, a bus 10. A load is half a second and its bytes."""

from mesh.facts import ReplicaState
from sim.policy import (
    ClusterState,
    LoadState,
    ModelState,
    NodeState,
    Resident,
    RunningRequest,
    WaitingRequest,
    WorkerState,
    spot,
)

SLOTS = 2


def running(request_id: str, left_s: float = 10.0) -> RunningRequest:
    """50 tokens of a prompt and 50 of an answer: their KV takes a second."""
    return RunningRequest(request_id, 0.0, 50, 50, left_s)


def resident(
    worker_id: str, model: str, *requests: RunningRequest, state: ReplicaState = ReplicaState.READY, idle_s: float = 0.0
) -> Resident:
    """A replica; without requests, unused since `idle_s`."""
    return Resident(spot(worker_id, model), state, 12, SLOTS, requests, None if requests else idle_s, None)


def worker(worker_id: str, *residents: Resident, memory: int = 12) -> WorkerState:
    """On the node that its name begins with, by default with room for one replica."""
    return WorkerState(worker_id, worker_id.split("-", maxsplit=1)[0], memory, residents, 2, SLOTS)


def node(
    node_id: str, *workers: WorkerState, dram: str = "", disk: str = "", loads: tuple[LoadState, ...] = ()
) -> NodeState:
    """`dram` and `disk` name the models that are there, a letter each."""
    whole_dram, whole_disk = (dict.fromkeys(names, 10) for names in (dram, disk))
    return NodeState(node_id, f"store-{node_id}", workers, whole_dram, whole_disk, 10.0, 1.0, 0.5, loads)


def state(*nodes: NodeState, waiting: str = "", since_s: float = 0.0) -> ClusterState:
    """`waiting` names the models that requests 0, 1, ... wait for."""
    models = {name: ModelState(name, 10, 0.5, 0.01) for name in "abcd"}
    requests = (WaitingRequest(str(i), model, since_s, since_s, 50) for i, model in enumerate(waiting))
    return ClusterState(tuple(requests), nodes, models, dict.fromkeys(models, 100.0))
