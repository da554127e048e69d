"""How much device memory a version takes on a worker, and what takes a worker's memory."""

from collections.abc import Collection
from typing import Protocol

from mesh.facts import (
    CheckpointSummary,
    ClusterFacts,
    Member,
    ModelEntry,
    ReplicaFacts,
    RunnerKind,
    WorkerFacts,
)
from policy.memory import Account
from policy.replicas import Replicas
from policy.seat import Seat
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


class Indexed(Known, Protocol):
    """What is looked at of the index alone."""

    def models_of(self, digest: str) -> Collection[str]:
        """Models whose current version is this checkpoint, or adapts it."""
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
    if entry is None or entry.checkpoint.digest == spot.digest:
        return entry.checkpoint if entry else None
    return entry.previous if entry.previous and entry.previous.digest == spot.digest else None


def is_base(entry: ModelEntry, replica: ReplicaFacts) -> bool:
    """Whether a replica is what an adapter can be put on."""
    return not replica.base and replica.digest == entry.checkpoint.base


def account(known: Indexed, member: Member, worker: WorkerFacts, claims: Collection[Spot]) -> Account:
    """What there is of a worker's memory. `claims` are the versions for which room is being made there."""
    replicas = known.replicas
    used_bytes = leaving_bytes = idle_bytes = 0
    spots = set(replicas.loads_on(member.id))
    for seat in replicas.on(member.id):
        size = seat.replica.bytes
        used_bytes += size
        if replicas.idle(seat):
            idle_bytes += size
        elif replicas.leaves(seat):
            leaving_bytes += size
        elif seat.is_loading:
            spots.add(seat.spot)
    return Account(
        free_bytes=worker.memory_bytes - used_bytes - (_coming_bytes(known, member, worker, spots) if spots else 0),
        leaving_bytes=leaving_bytes,
        claimed_bytes=_claimed_bytes(known, member, worker, claims) if leaving_bytes else 0,
        idle_bytes=idle_bytes,
    )


def _coming_bytes(known: Indexed, member: Member, worker: WorkerFacts, spots: Collection[Spot]) -> int:
    """What the facts do not show yet of loads under way: of those that are commanded, and of what the worker itself
    says that it loads, for that goes on a while after its command was given up or its leader has gone."""
    replicas = known.replicas
    coming, bases, sized = 0, dict[str, int](), set[str]()
    for spot in spots:
        version = version_of(known, spot)
        if version and version.base:
            bases[version.base] = version.base_bytes + worker.kv_bytes
        if size := _whole_bytes(known, spot, version, worker):
            sized.add(spot.digest)
            coming += max(0, size - _shown_bytes(replicas.seat(spot)))
    for digest in bases.keys() - sized if bases else ():
        coming += max(0, bases[digest] - _there_bytes(known, member, digest, bases[digest]))
    return coming


def _there_bytes(known: Known, member: Member, digest: str, whole_bytes: int) -> int:
    """What of a base is on a worker: all of it where it is ready and stays, whatever its adapters think it takes."""
    replicas = known.replicas
    there = [seat for seat in replicas.on(member.id) if seat.replica.digest == digest]
    if any(not seat.is_loading and not replicas.leaves(seat) for seat in there):
        return whole_bytes
    return max((seat.replica.bytes for seat in there), default=0)


def _shown_bytes(seat: Seat | None) -> int:
    """Of a load: there from the first moment, its size known only later."""
    return seat.replica.bytes if seat else 0


def _whole_bytes(known: Indexed, spot: Spot, version: CheckpointSummary | None, worker: WorkerFacts) -> int:
    """What a load comes to, its pool included; of a base that no model has asked for, as its adapters say. 0: not
    known."""
    if version:
        return version.bytes + (0 if version.base else kv_bytes(version, worker))
    names = () if spot.model else known.models_of(spot.digest)
    adapters = (known.cluster.models[name].checkpoint for name in names)
    return max((one.base_bytes + worker.kv_bytes for one in adapters if one.base == spot.digest), default=0)


def _claimed_bytes(known: Known, member: Member, worker: WorkerFacts, claims: Collection[Spot]) -> int:
    entries = (known.cluster.models.get(spot.model) for spot in claims)
    return sum(need_bytes(known, entry, member, worker) for entry in entries if entry)
