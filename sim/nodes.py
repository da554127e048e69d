"""Live machines: tiers, what bytes pass through, and the workers with their replicas."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mesh.facts import ReplicaState, Tier
from policy.view import Spot
from sim.batch import Batch, Sequence
from sim.engine import Engine
from sim.pool import Pool
from sim.serving import Device
from sim.spec import ModelSpec, NodeSpec
from sim.traffic import Resource, Traffic


@dataclass(eq=False, slots=True)
class Replica:
    """A model on a worker."""

    spot: Spot
    model: ModelSpec
    bytes: int  # weights and KV pool
    slots: int
    batch: Batch
    state: ReplicaState = ReplicaState.LOADING
    running: dict[str, Sequence] = field(default_factory=dict)
    coming: set[str] = field(default_factory=set)  # of these, those whose KV is on its way: nothing runs for them yet
    idle_since_s: float | None = None  # None while it loads or somebody uses it

    @property
    def open_slots(self) -> int:
        """How many more requests it takes now."""
        return self.slots - len(self.running) if self.state is ReplicaState.READY else 0


class Worker:
    """One device of a node."""

    def __init__(self, engine: Engine, worker_id: str, node: "Node", spec: NodeSpec) -> None:
        self.id, self.node = worker_id, node
        self.memory_bytes, self.kv_bytes, self.slots = spec.memory_bytes, spec.kv_bytes, spec.slots
        self.bus = Resource(f"{worker_id} bus", spec.dram_bytes_per_s)
        self.device = Device(engine)
        self.replicas: dict[Spot, Replica] = {}
        self.changes = 0
        self._engine, self._held_s, self._since_s = engine, 0.0, 0.0  # since something is held, or nothing

    @property
    def held_s(self) -> float:
        """For how long it has held a replica, in whatever state."""
        return self._held_s + (self._engine.now_s - self._since_s if self.replicas else 0.0)

    def touch(self) -> None:
        """Its replicas, or what runs there, are no longer what they were."""
        self.changes += 1
        self.node.changes += 1

    @property
    def free_bytes(self) -> int:
        """Memory that no replica holds, in whatever state."""
        return self.memory_bytes - sum(replica.bytes for replica in self.replicas.values())

    def replica(self, spot: Spot, model: ModelSpec) -> Replica:
        """A new one, which loads."""
        made = Replica(spot, model, model.bytes + self.kv_bytes, self.slots, Batch(model.costs))
        if not self.replicas:
            self._since_s = self._engine.now_s
        self.replicas[spot] = made
        self.touch()
        return made

    def forget(self, spots: Iterable[Spot]) -> None:
        """These replicas are gone."""
        self._held_s, self._since_s = self.held_s, self._engine.now_s
        for spot in spots:
            del self.replicas[spot]
        self.touch()


class Node:
    """One machine."""

    def __init__(self, engine: Engine, node_id: str, spec: NodeSpec) -> None:
        self.id, self.store_id, self.spec = node_id, f"store-{node_id}", spec
        self.traffic = Traffic(engine)
        self.changes = 0  # of its workers
        self.disk = Resource(f"{node_id} disk", spec.disk_bytes_per_s)
        self.network = Resource(f"{node_id} network", spec.origin_bytes_per_s)
        self.dram_pool, self.disk_pool = Pool(spec.dram_bytes), Pool(spec.disk_bytes)
        self.pools = (self.dram_pool, self.disk_pool)
        self.workers = [Worker(engine, f"{node_id}-w{number}", self, spec) for number in range(spec.workers)]

    def pool(self, tier: Tier) -> Pool:
        """Of a tier, DISK or DRAM."""
        return self.dram_pool if tier is Tier.DRAM else self.disk_pool
