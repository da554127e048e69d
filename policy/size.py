"""How much device memory a version takes on a worker, and what takes a worker's memory."""

from collections.abc import Collection
from typing import Protocol

from mesh.facts import CheckpointSummary, ClusterFacts, Member, ModelEntry, ReplicaFacts, RunnerKind, WorkerFacts
from policy.memory import Account
from policy.replicas import Replicas
from policy.spot import Spot


class Known(Protocol):
    """What is looked at here: of a view, or of the index behind it."""

    @property
    def cluster(self) -> ClusterFacts:
        """The facts."""
        ...

    @property
    def replicas(self) -> Replicas:
        """Replicas, and commands under way."""
        ...


def full_bytes(entry: ModelEntry, worker: WorkerFacts) -> int:
    """Device memory that a replica takes on an empty worker: weights and KV pool; an adapter needs its base's."""
    return entry.checkpoint.bytes + entry.checkpoint.base_bytes + kv_bytes(entry.checkpoint, worker)


def kv_bytes(version: CheckpointSummary, worker: WorkerFacts) -> int:
    """Of the pool that a replica brings; what only embeds has none."""
    return 0 if version.runner is RunnerKind.ENCODER else worker.kv_bytes


def need_bytes(known: Known, entry: ModelEntry, member: Member, worker: WorkerFacts) -> int:
    """Device memory that a replica takes there: of an adapter nothing but its own, beside a base that is there."""
    if entry.checkpoint.base and has_base(known, entry, member):
        return entry.checkpoint.bytes
    return full_bytes(entry, worker)


def has_base(known: Known, entry: ModelEntry, member: Member) -> bool:
    """Whether an adapter finds its base on a worker, or on the way there, and not about to go."""
    replicas = known.replicas
    if any(is_base(entry, seat.replica) and not replicas.leaves(seat) for seat in replicas.on(member.id)):
        return True
    coming = [version_of(known, spot) for spot in replicas.loads_on(member.id)]
    base = entry.checkpoint.base
    return any(base in (version.base, version.digest) for version in coming if base and version)


def version_of(known: Known, spot: Spot) -> CheckpointSummary | None:
    """What a replica on its way is of; nothing is known of a version that the catalogue has forgotten."""
    entry = known.cluster.models.get(spot.model)
    versions = [entry.checkpoint, entry.previous] if entry else []
    return next((version for version in versions if version and version.digest == spot.digest), None)


def is_base(entry: ModelEntry, replica: ReplicaFacts) -> bool:
    """Whether a replica is what an adapter can be put on."""
    return not replica.base and replica.digest == entry.checkpoint.base


def account(known: Known, member: Member, worker: WorkerFacts, claims: Collection[Spot]) -> Account:
    """What there is of a worker's memory. `claims` are the versions for which room is being made there."""
    replicas = known.replicas
    seats = replicas.on(member.id)
    leaving_bytes = sum(seat.replica.bytes for seat in seats if replicas.leaves(seat))
    return Account(
        free_bytes=worker.memory_bytes - worker.memory_used_bytes - _coming_bytes(known, member, worker),
        leaving_bytes=leaving_bytes,
        claimed_bytes=_claimed_bytes(known, member, worker, claims) if leaving_bytes else 0,
        idle_bytes=sum(seat.replica.bytes for seat in seats if replicas.idle(seat)),
    )


def _coming_bytes(known: Known, member: Member, worker: WorkerFacts) -> int:
    """What the facts do not show yet of loads under way."""
    spots = known.replicas.loads_on(member.id)
    coming, bases = 0, dict[str, int]()
    for spot in spots:
        version = version_of(known, spot)
        shown = known.replicas.seat(spot)  # from the first moment, its size known only later
        if version and version.base:
            bases[version.base] = version.base_bytes + worker.kv_bytes
        size = version.bytes + (0 if version.base else kv_bytes(version, worker)) if version else 0
        coming += max(0, size - (shown.replica.bytes if shown else 0))
    for digest in bases.keys() - {spot.digest for spot in spots}:
        shown_bytes = max((r.bytes for r in worker.replicas if r.digest == digest), default=0)
        coming += max(0, bases[digest] - shown_bytes)
    return coming


def _claimed_bytes(known: Known, member: Member, worker: WorkerFacts, claims: Collection[Spot]) -> int:
    entries = (known.cluster.models.get(spot.model) for spot in claims)
    return sum(need_bytes(known, entry, member, worker) for entry in entries if entry)
