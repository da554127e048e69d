"""Small clusters in a line each, for tests of the judgement. A model's weights take 10, a KV pool 2: a replica, 12."""

from collections.abc import Iterable
from dataclasses import replace

from mesh.facts import (
    CheckpointFacts,
    CheckpointSummary,
    ClusterFacts,
    Kind,
    Member,
    ModelEntry,
    ReplicaFacts,
    ReplicaState,
    StoreFacts,
    Tier,
    WorkerFacts,
)
from policy.estimate import Source
from policy.sources import Sources
from policy.view import Spot, Waiting

WEIGHTS, KV = 10, 2
REPLICA = WEIGHTS + KV


def at(worker_id: str, name: str = "m", digest: str = "") -> Spot:
    """A version of a model on a worker."""
    return Spot(worker_id, name, digest or f"{name}@1")


def fence(worker_id: str) -> int:
    """Of the worker's lease."""
    return 100 + int(worker_id.removeprefix("w"))


def model(
    name: str,
    *,
    digest: str = "",
    weights: int = WEIGHTS,
    keep_alive_s: float | None = None,
    previous: str = "",
    base: str = "",
) -> ModelEntry:
    """A model of the catalogue; unless told, its digest is its name followed by "@1". With a base, an adapter."""
    checkpoint = CheckpointSummary(digest or f"{name}@1", weights, "LlamaForCausalLM", "bfloat16", 512, 6, 39, 64)
    if base:
        checkpoint = replace(checkpoint, base=base, base_bytes=WEIGHTS)
    return ModelEntry(
        name,
        checkpoint,
        "/models",
        keep_alive_s,
        created_s=0.0,
        updated_s=0.0,
        revision=1,
        previous=replace(checkpoint, digest=previous) if previous else None,
    )


def replica(
    name: str,
    *,
    digest: str = "",
    state: ReplicaState = ReplicaState.READY,
    size: int = REPLICA,
    running: int = 0,
    waiting: int = 0,
) -> ReplicaFacts:
    """A model on a worker."""
    return ReplicaFacts(name, digest or f"{name}@1", state, size, running, waiting)


def worker(worker_id: str, *replicas: ReplicaFacts, node: str = "n1", memory: int = REPLICA, slots: int = 2) -> Member:
    """A worker, by default with room for one replica of two slots."""
    facts = WorkerFacts("host", memory, KV, slots, replicas)
    return Member(Kind.WORKER, worker_id, node, f"{worker_id}:1", fence(worker_id), worker=facts)


def nascent(worker_id: str) -> Member:
    """A worker that has joined and not said yet what it has."""
    return Member(Kind.WORKER, worker_id, "n1", f"{worker_id}:1", fence(worker_id))


def store(store_id: str, *digests: str, node: str = "n1", tier: Tier = Tier.DISK) -> Member:
    """A store that holds these checkpoints in one tier."""
    held = tuple(CheckpointFacts(digest, WEIGHTS, tier) for digest in digests)
    return Member(Kind.STORE, store_id, node, f"{store_id}:1", 1, store=StoreFacts(0, 0, 0, held))


def nearest_source(stores: Iterable[Member], digest: str, node: str) -> Source | None:
    """Where a node would load a checkpoint from, had the cluster these stores."""
    sources = Sources()
    for one in stores:
        sources.put(one.id, one)
    return sources.nearest(digest, node)


def cluster(members: Iterable[Member], models: Iterable[ModelEntry]) -> ClusterFacts:
    """The facts."""
    return ClusterFacts({f"{m.kind}/{m.id}": m for m in members}, {entry.name: entry for entry in models})


def request(
    request_id: str,
    name: str = "m",
    *,
    since_s: float = 0.0,
    excluded: Iterable[str] = (),
    current_only: bool = False,
    digest: str = "",
) -> Waiting:
    """A request that waits."""
    return Waiting(request_id, name, since_s, frozenset(map(fence, excluded)), current_only, digest=digest)
