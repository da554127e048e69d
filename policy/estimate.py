"""How long things take, as far as one can tell."""

from collections.abc import Iterable
from dataclasses import dataclass

from mesh.facts import CheckpointFacts, Member, Tier
from policy.knobs import Knobs


@dataclass(frozen=True, slots=True)
class Source:
    """A store to load a checkpoint from, and how much of it lies there."""

    store: Member
    dram_bytes: int
    disk_bytes: int  # of what is not in DRAM


def nearest_source(stores: Iterable[Member], digest: str, node: str) -> Source | None:
    """The store to load from: the same node's even when it has nothing yet, for it fetches; else the one with most.

    None when no store has heard of the checkpoint, and none can ask an origin.
    """
    known = [(member, _held(member, digest)) for member in stores if member.store]
    able = [(m, held) for m, held in known if held or (m.store and m.store.origins)]
    if not able:
        return None
    near = [(m, held) for m, held in known if m.node == node] or able
    return max((_source(m, held) for m, held in near), key=lambda s: (s.dram_bytes, s.disk_bytes, s.store.id))


def start_up_s(size_bytes: int, source: Source, node: str, knobs: Knobs) -> float:
    """Seconds until a replica is ready: the bytes of each tier over its rate, and the fixed part."""
    rates = knobs.bytes_per_s
    beyond_bytes = max(0, size_bytes - source.dram_bytes - source.disk_bytes)
    if source.store.node != node:  # all of it crosses the network
        return size_bytes / rates[Tier.ORIGIN] + knobs.init_s
    near_s = source.dram_bytes / rates[Tier.DRAM] + source.disk_bytes / rates[Tier.DISK]
    return near_s + beyond_bytes / rates[Tier.ORIGIN] + knobs.init_s


def _held(member: Member, digest: str) -> CheckpointFacts | None:
    checkpoints = member.store.checkpoints if member.store else ()
    return next((held for held in checkpoints if held.digest == digest), None)


def _source(store: Member, held: CheckpointFacts | None) -> Source:
    """Bytes in DRAM count there: each tier keeps a checkpoint's head longest, so the nearer lies in the farther."""
    if held is None:
        return Source(store, 0, 0)
    dram = held.bytes if held.tier is Tier.DRAM else held.dram_bytes
    disk = held.bytes if held.tier is Tier.DISK else held.disk_bytes
    return Source(store, dram, max(0, disk - dram))
