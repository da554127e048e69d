"""The facts of a large cluster on paper: its models, workers and stores."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace

from mesh.facts import (
    CheckpointFacts,
    CheckpointSummary,
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

GB = 10**9
MEMORY_BYTES, KV_BYTES, SLOTS = 80 * GB, 2 * GB, 8
WEIGHTS_BYTES = (6 * GB, 8 * GB, 13 * GB, 16 * GB)  # of models, by turns
COPIES = 4  # stores that have a checkpoint on disk


def model(name: str, number: int) -> ModelEntry:
    """One of the catalogue."""
    weights = WEIGHTS_BYTES[number % len(WEIGHTS_BYTES)]
    version = CheckpointSummary(name, weights, "LlamaForCausalLM", "bfloat16", 4096, 34, 300, 131072)
    return ModelEntry(name, replace(version, runner=RunnerKind.PACKED), "", None, created_s=0.0, updated_s=0.0)


def replica(entry: ModelEntry) -> ReplicaFacts:
    """Of it, ready and idle."""
    return ReplicaFacts(entry.name, entry.checkpoint.digest, ReplicaState.READY, entry.checkpoint.bytes + KV_BYTES)


def worker(worker_id: str, node: str) -> Member:
    """An empty one."""
    return Member(Kind.WORKER, worker_id, node, worker_id, 1, worker=WorkerFacts("cuda", MEMORY_BYTES, KV_BYTES, SLOTS))


def stores(nodes: list[str], models: Mapping[str, ModelEntry], rng: random.Random) -> Iterable[Member]:
    """One a node; each checkpoint lies on the disks of some, by chance."""
    held: dict[str, list[CheckpointFacts]] = {node: [] for node in nodes}
    for entry in models.values():
        size = entry.checkpoint.bytes
        for node in rng.sample(nodes, min(COPIES, len(nodes))):
            held[node].append(CheckpointFacts(entry.checkpoint.digest, size, Tier.DISK, size))
    for node, checkpoints in held.items():
        yield Member(Kind.STORE, f"s-{node}", node, node, 1, store=StoreFacts(0, 0, 0, tuple(checkpoints)))
