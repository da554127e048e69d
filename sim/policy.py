"""What a scheduling policy sees of the simulated cluster, and what it may ask for: the protocol of ours and of all
baselines. Read-only; times are seconds of simulated time. Nobody is told how long an answer will be."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mesh.facts import ReplicaState
from policy.actions import Load, Move, Place, Prefetch, Refuse, Unload
from policy.copying import Copy
from policy.view import Spot


@dataclass(frozen=True, slots=True)
class Preempt:
    """Stop a running request where it is. It waits again, keeps its tokens, and its next prefill computes all anew."""

    request_id: str


Action = Place | Load | Unload | Refuse | Prefetch | Preempt | Move


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in this order, and when to ask again if nothing happens before (None: never)."""

    actions: tuple[Action, ...] = ()
    look_again_s: float | None = None


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """A request without a place, oldest first in the state."""

    id: str
    model: str
    arrived_s: float
    since_s: float  # when it began to wait: later than its arrival after a preemption or a crash
    prompt_tokens: int
    emitted_tokens: int = 0  # before it was preempted, or its worker lost
    deadline_s: float | None = None  # for the first token, a moment
    tenant: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class RunningRequest:
    """A request on a replica. `left_s` is an estimate: what the model's answers took so far, on average, less what
    this one has, at the pace of the last step."""

    id: str
    placed_s: float
    prompt_tokens: int
    emitted_tokens: int
    left_s: float
    priority: int = 0
    tenant: str = ""
    moved_s: float | None = None  # when it last changed its seat


@dataclass(frozen=True, slots=True)
class Resident:
    """A replica: one model on one worker. `ready_at_s` is an estimate, of one that loads."""

    spot: Spot
    state: ReplicaState
    bytes: int  # weights and KV pool
    slots: int
    running: Sequence[RunningRequest]  # as of now, whenever that is
    idle_since_s: float | None  # None while it loads or somebody uses it
    ready_at_s: float | None
    request_ids: Collection[str] = ()  # of those that run

    @property
    def open_slots(self) -> int:
        """How many more requests it takes now."""
        return self.slots - len(self.running) if self.state is ReplicaState.READY else 0


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One device."""

    id: str
    node_id: str
    memory_bytes: int
    residents: tuple[Resident, ...]
    kv_bytes: int  # the pool that each replica brings
    slots: int  # sequences that one replica runs at once

    @property
    def free_bytes(self) -> int:
        """Memory that no replica holds, those that load or leave included."""
        return self.memory_bytes - sum(one.bytes for one in self.residents)


@dataclass(frozen=True, slots=True)
class LoadState:
    """A load under way."""

    spot: Spot
    began_s: float
    left_bytes: int


@dataclass(frozen=True, slots=True)
class NodeState:
    """One machine: what each tier holds, by model, the nominal rate of each, and the loads under way, oldest first."""

    id: str
    store_id: str
    workers: tuple[WorkerState, ...]
    dram: Mapping[str, int]
    disk: Mapping[str, int]
    dram_bytes_per_s: float  # from memory to one device
    disk_bytes_per_s: float  # all loads of the node share it
    origin_bytes_per_s: float  # all loads of the node share it
    loads: tuple[LoadState, ...]
    dram_capacity_bytes: int = 0
    disk_capacity_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ModelState:
    """What is known of a model."""

    name: str
    bytes: int  # of its weights
    init_s: float  # of a load that is not bytes
    prefill_token_s: float
    kv_bytes_per_token: int = 0


@dataclass(frozen=True, slots=True)
class ClusterState:
    """One moment. What has failed is not in it."""

    waiting: tuple[WaitingRequest, ...]
    nodes: tuple[NodeState, ...]
    models: Mapping[str, ModelState]
    mean_answer_tokens: Mapping[str, float]  # by model, of answers so far
    prefetches: frozenset[Copy] = frozenset()  # under way
    drains: frozenset[str] = frozenset()  # "worker/<id>" of those that are to become empty

    def workers(self) -> Iterator[WorkerState]:
        """Of all nodes."""
        for node in self.nodes:
            yield from node.workers

    def residents(self, model: str = "") -> Iterator[Resident]:
        """Replicas of one model, or of all."""
        for worker in self.workers():
            yield from (one for one in worker.residents if model in ("", one.spot.model))

    def node(self, node_id: str) -> NodeState:
        """By its name. KeyError if it is not there."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise KeyError(node_id)


class Policy(Protocol):
    """Asked whenever something has happened: a request came or ended, a load or an unload is done, something failed,
    or the moment has come that it named. Draws of its own come from a seed that it was made with."""

    name: str

    def decide(self, state: ClusterState, now: float) -> Plan:
        """What to do."""
        ...


def spot(worker_id: str, model: str) -> Spot:
    """Where a model is on a worker. In the simulator each model has one version, named as itself."""
    return Spot(worker_id, model, model)


def load(state: ClusterState, worker: WorkerState, model: str) -> Load:
    """Makes a replica there, through the worker's own node."""
    return Load(spot(worker.id, model), state.node(worker.node_id).store_id)
