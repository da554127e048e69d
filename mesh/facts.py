"""What is true of the cluster: frozen records that services publish and policy reads. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType


class Kind(StrEnum):
    """The processes that hold a lease."""

    SCHEDULER = "scheduler"
    GATEWAY = "gateway"
    STORE = "store"
    WORKER = "worker"


class Tier(StrEnum):
    """Where bytes lie."""

    ORIGIN = "origin"
    DISK = "disk"
    DRAM = "dram"
    DEVICE = "device"

    __hash__ = str.__hash__  # tiers are looked up for every candidate of every decision


NEARNESS: Mapping[Tier, int] = MappingProxyType({tier: rank for rank, tier in enumerate(Tier)})


class ReplicaState(StrEnum):
    """Life of a replica."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


class NumericsLevel(StrEnum):
    """How closely two runs of the same request agree: docs/numerics.md."""

    FAST = "fast"
    BATCH_INVARIANT = "batch_invariant"
    PATH_INVARIANT = "path_invariant"


class RunnerKind(StrEnum):
    """What runs a checkpoint."""

    PACKED = "packed"  # ragged batches over paged KV
    OPAQUE = "opaque"  # a cache of the model's own kind a sequence, one sequence at a time
    ENCODER = "encoder"  # no generation, only embeddings


class Priority(IntEnum):
    """Bands of service, the lowest first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


@dataclass(frozen=True, slots=True)
class ReplicaFacts:
    """One version of a model on one worker. The model is "" for a base that no model had asked for."""

    model: str
    digest: str
    state: ReplicaState
    bytes: int  # weights and KV pool together; an adapter has its base's pool
    running: int = 0
    waiting: int = 0
    base: str = ""  # of an adapter: the checkpoint that it adapts
    beside: str = ""  # of an adapter: the model of the replica that it is on; "" if that is there for adapters alone
    numerics: NumericsLevel = NumericsLevel.FAST
    fingerprint: str = ""  # equal on two workers: equal bits, as far as the level promises; empty if it promises none
    runner: RunnerKind | None = None  # None: not known before it is loaded
    prefill_token_s: float = 0.0  # what a token of a prompt has cost, roughly; 0: not known yet

    def carries(self, other: "ReplicaFacts") -> bool:
        """Whether `other`, of the same worker, is an adapter on this replica."""
        return not self.base and (other.base, other.beside) == (self.digest, self.model)


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """One worker: its device and what is resident."""

    device: str  # "host" or "cuda"
    memory_bytes: int
    kv_bytes: int  # KV pool that each replica gets
    slots: int  # sequences that one replica runs at once
    replicas: tuple[ReplicaFacts, ...] = ()
    stopping: bool = False  # told to end: it finishes what it has, and takes nothing new

    @property
    def memory_used_bytes(self) -> int:
        """Bytes held by replicas, those on their way included."""
        return sum([replica.bytes for replica in self.replicas])

    def replica(self, model: str, digest: str) -> ReplicaFacts | None:
        """The replica of this checkpoint of `model`, in whatever state."""
        return next((r for r in self.replicas if r.model == model and r.digest == digest), None)

    def replicas_of(self, model: str) -> tuple[ReplicaFacts, ...]:
        """Those of `model`, whichever checkpoint each has: while a version takes over there are two."""
        return tuple(r for r in self.replicas if r.model == model)


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """One checkpoint in one store; `tier` is the nearest that holds all of it, ORIGIN when none here does."""

    digest: str
    bytes: int
    tier: Tier
    disk_bytes: int = 0  # of it on disk
    dram_bytes: int = 0  # of it in shared memory


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """One store: its capacities and what it holds."""

    disk_used_bytes: int
    dram_capacity_bytes: int
    dram_used_bytes: int
    checkpoints: tuple[CheckpointFacts, ...] = ()
    disk_capacity_bytes: int = 0  # 0: as much as the disk has
    corrupt_units: int = 0  # found damaged since the store started
    origins: int = 0  # native origins that it can ask for checkpoints that no store has

    def held(self, digest: str) -> CheckpointFacts | None:
        """What is here of a checkpoint."""
        return next((c for c in self.checkpoints if c.digest == digest), None)

    def tier_of(self, digest: str) -> Tier | None:
        """The nearest tier here that holds all of `digest`."""
        held = self.held(digest)
        return held.tier if held else None


@dataclass(frozen=True, slots=True)
class Member:
    """A live process: who it is, where, under which fence, and its facts."""

    kind: Kind
    id: str
    node: str
    address: str
    fence: int = 0
    worker: WorkerFacts | None = None
    store: StoreFacts | None = None


@dataclass(frozen=True, slots=True)
class CheckpointSummary:
    """What the catalogue needs to know of a checkpoint."""

    digest: str
    bytes: int
    architecture: str
    dtype: str
    max_context: int
    units: int
    tensors: int
    kv_bytes_per_token: int
    base: str = ""  # of an adapter: the digest of the checkpoint that it adapts
    base_bytes: int = 0  # of an adapter: what its base takes
    runner: RunnerKind | None = None  # None: nothing here runs it by itself


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model of the catalogue. It may have no replica anywhere."""

    name: str
    checkpoint: CheckpointSummary
    source: str
    keep_alive_s: float | None  # None: the cluster's default
    created_s: float
    updated_s: float
    revision: int = 0
    previous: CheckpointSummary | None = None  # before the last update: what a rollback goes back to
    numerics: NumericsLevel | None = None  # None: each worker's default
    min_replicas: int = 0  # there whether or not anybody asks
    max_replicas: int = 0  # that requests may bring about; 0: as many as there are workers
    target_concurrency: int = 0  # requests at a replica before another is worth its load; 0: its slots


@dataclass(frozen=True, slots=True)
class Leader:
    """The scheduler that decides now."""

    id: str
    address: str
    fence: int


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """Everything known at one moment; the maps are never changed in place."""

    members: Mapping[str, Member] = field(default_factory=lambda: MappingProxyType({}))  # by "kind/id"
    models: Mapping[str, ModelEntry] = field(default_factory=lambda: MappingProxyType({}))  # by name
    leader: Leader | None = None
    drains: frozenset[str] = frozenset()  # "worker/<id>" and "node/<name>" that are to become empty

    def is_draining(self, member: Member) -> bool:
        """Whether nothing new is to go there: somebody is about to stop it, or its node, or it says so itself."""
        if member.worker and member.worker.stopping:
            return True
        return bool(self.drains) and not self.drains.isdisjoint((f"{member.kind}/{member.id}", f"node/{member.node}"))

    def of_kind(self, kind: Kind) -> tuple[Member, ...]:
        """The live members of one kind."""
        return tuple(m for m in self.members.values() if m.kind is kind)
