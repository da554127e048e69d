"""How long a start takes, as far as one can tell: the longer of what its bytes and its device wait for, the bytes of
each tier over its rate, and what is not bytes. DESIGN §7's formula, by rates that were learnt."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mesh.facts import CheckpointFacts, CheckpointSummary, Member, Tier
from policy.haul import Haul
from policy.knobs import Knobs
from policy.rates import BYTES_OF, Portion, Quantity, Rate, Rates, p90

ALONE: Mapping[Tier, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Source:
    """A store to load a checkpoint from, and how much of it lies there."""

    store: Member
    dram_bytes: int
    disk_bytes: int  # of what is not in DRAM


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done before a first token. `beside` are bytes of others, which come through the same; it goes on
    while the device is made free."""

    beside: tuple[Portion, ...] = ()
    device: tuple[Portion, ...] = ()
    bytes: tuple[Portion, ...] = ()
    rest: tuple[Portion, ...] = ()  # skeleton, pool, first step; then the prompt

    def portions(self) -> tuple[Portion, ...]:
        """All of them."""
        return (*self.beside, *self.device, *self.bytes, *self.rest)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds until a first token, in parts. `variance` is of the logarithm of their sum."""

    io_queue_s: float = 0.0
    device_queue_s: float = 0.0
    dram_s: float = 0.0
    disk_s: float = 0.0
    origin_s: float = 0.0
    init_s: float = 0.0
    prefill_s: float = 0.0
    variance: float = 0.0

    @property
    def mean_s(self) -> float:
        """What to rank by."""
        bytes_s = self.dram_s + self.disk_s + self.origin_s
        return max(self.io_queue_s, self.device_queue_s) + bytes_s + self.init_s + self.prefill_s

    @property
    def p90_s(self) -> float:
        """What to promise."""
        return p90(self.mean_s, self.variance)


def source_at(store: Member, digest: str) -> Source:
    """What this very store has of a checkpoint."""
    return source(store, _held(store, digest))


def haul(version: CheckpointSummary, source: Source, worker: Member) -> Haul:
    """Of a checkpoint from there. What comes from another node's store all crosses the network."""
    return hauled_from(source, version, worker.id, worker.node)


def hauled_from(source: Source, version: CheckpointSummary, worker_id: str, node: str) -> Haul:
    """The same, to a worker by its name."""
    size = version.bytes
    dram = disk = 0
    if source.store.node == node:
        dram = min(size, source.dram_bytes)
        disk = min(size - dram, source.disk_bytes)
    origin = size - dram - disk
    return Haul(worker_id, node, version.architecture, dram_bytes=dram, disk_bytes=disk, origin_bytes=origin)


def load_work(load: Haul, knobs: Knobs, beside: Mapping[Tier, int] = ALONE) -> Work:
    """Of a replica: until it is ready. `beside` are the bytes of others that share what the load's pass through."""
    sizes = {lane.tier: size for lane, size in load.lanes()}
    init = Portion(Rate(Quantity.INIT, load.node, load.architecture), 1, knobs.init_s)
    return Work(
        beside=tuple(_bytes(load.node, tier, size, knobs) for tier, size in beside.items()),
        bytes=tuple(_bytes(load.node, tier, size, knobs) for tier, size in sizes.items()),
        rest=(init,),
    )


def prefill(node: str, digest: str, tokens: float, knobs: Knobs) -> Portion:
    """Of a prompt, on a replica that is there."""
    return Portion(Rate(Quantity.PREFILL, node, digest), tokens, knobs.prefill_token_s)


def unloading(node: str, knobs: Knobs) -> Portion:
    """Of idle replicas, to make room; several go at once."""
    return Portion(Rate(Quantity.UNLOAD, node), 1, knobs.unload_s)


def estimate(work: Work, rates: Rates) -> Estimate:
    """The work in seconds, part by part."""
    took = {portion.rate.quantity: rates.seconds(portion) for portion in (*work.bytes, *work.rest)}
    return Estimate(
        io_queue_s=sum(map(rates.seconds, work.beside)),
        device_queue_s=sum(map(rates.seconds, work.device)),
        dram_s=took.get(Quantity.DRAM, 0.0),
        disk_s=took.get(Quantity.DISK, 0.0),
        origin_s=took.get(Quantity.ORIGIN, 0.0),
        init_s=took.get(Quantity.INIT, 0.0),
        prefill_s=took.get(Quantity.PREFILL, 0.0),
        variance=rates.variance(work.portions()),
    )


def _bytes(node: str, tier: Tier, size: int, knobs: Knobs) -> Portion:
    return Portion(Rate(BYTES_OF[tier], node), size, 1 / knobs.bytes_per_s[tier])


def _held(member: Member, digest: str) -> CheckpointFacts | None:
    checkpoints = member.store.checkpoints if member.store else ()
    return next((held for held in checkpoints if held.digest == digest), None)


def source(store: Member, held: CheckpointFacts | None) -> Source:
    """What a store says that it has. Bytes in DRAM count there: each tier keeps a checkpoint's head longest, so the
    nearer lies in the farther."""
    if held is None:
        return Source(store, 0, 0)
    dram = held.bytes if held.tier is Tier.DRAM else held.dram_bytes
    disk = held.bytes if held.tier is Tier.DISK else held.disk_bytes
    return Source(store, dram, max(0, disk - dram))
