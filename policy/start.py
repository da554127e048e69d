"""What a load would have to bring, by the facts of this moment."""

from dataclasses import replace

from mesh.facts import ClusterFacts, Kind, Member
from policy.actions import Load
from policy.estimate import haul, source_at
from policy.haul import Haul


def hauled(cluster: ClusterFacts, action: Load) -> Haul | None:
    """Of a load that is about to begin, its base's bytes included where the worker has none: as it was decided, else by
    the facts. None where these do not show the model, the worker or the store any more."""
    if action.haul:
        return action.haul
    entry = cluster.models.get(action.spot.model)
    worker = cluster.members.get(f"{Kind.WORKER}/{action.spot.worker_id}")
    store = cluster.members.get(f"{Kind.STORE}/{action.store_id}")
    if entry is None or worker is None or store is None:
        return None
    version = entry.checkpoint
    load = haul(version, source_at(store, version.digest), worker)
    if not action.base or _has(worker, action.base):
        return load
    base = replace(version, digest=action.base, bytes=version.base_bytes)
    return load.plus(haul(base, source_at(store, action.base), worker))


def _has(worker: Member, digest: str) -> bool:
    replicas = worker.worker.replicas if worker.worker else ()
    return any(replica.digest == digest for replica in replicas)
