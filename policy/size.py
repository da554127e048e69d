"""How much device memory a version takes on a worker."""

from mesh.facts import CheckpointSummary, Member, ModelEntry, ReplicaFacts, ReplicaState, RunnerKind, WorkerFacts
from policy.view import Spot, View


def full_bytes(entry: ModelEntry, worker: WorkerFacts) -> int:
    """Device memory that a replica takes on an empty worker: weights and KV pool; an adapter needs its base's."""
    return entry.checkpoint.bytes + entry.checkpoint.base_bytes + kv_bytes(entry.checkpoint, worker)


def kv_bytes(version: CheckpointSummary, worker: WorkerFacts) -> int:
    """Of the pool that a replica brings; what only embeds has none."""
    return 0 if version.runner is RunnerKind.ENCODER else worker.kv_bytes


def need_bytes(view: View, entry: ModelEntry, member: Member, worker: WorkerFacts) -> int:
    """Device memory that a replica takes there: of an adapter nothing but its own, beside a base that is there."""
    if has_base(view, entry, member, worker):
        return entry.checkpoint.bytes
    return full_bytes(entry, worker)


def has_base(view: View, entry: ModelEntry, member: Member, worker: WorkerFacts) -> bool:
    """Whether an adapter finds its base on a worker, or on the way there, and not about to go."""
    there = (replica for replica in worker.replicas if is_base(entry, replica))
    staying = (replica for replica in there if replica.state is not ReplicaState.DRAINING)
    if any(Spot(member.id, replica.model, replica.digest) not in view.unloading for replica in staying):
        return True
    coming = [version_of(view, spot) for spot in view.loading if spot.worker_id == member.id]
    base = entry.checkpoint.base
    return any(base in (version.base, version.digest) for version in coming if base and version)


def version_of(view: View, spot: Spot) -> CheckpointSummary | None:
    """What a replica on its way is of; nothing is known of a version that the catalogue has forgotten."""
    entry = view.cluster.models.get(spot.model)
    versions = [entry.checkpoint, entry.previous] if entry else []
    return next((version for version in versions if version and version.digest == spot.digest), None)


def is_base(entry: ModelEntry, replica: ReplicaFacts) -> bool:
    """Whether a replica is what an adapter can be put on."""
    return not replica.base and replica.digest == entry.checkpoint.base
