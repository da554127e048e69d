"""How long things take, as far as one can tell."""

from collections.abc import Iterable
from dataclasses import dataclass

from mesh.facts import NEARNESS, Member, Tier
from policy.knobs import Knobs


@dataclass(frozen=True, slots=True)
class Source:
    """A store that holds a checkpoint, and how near."""

    store: Member
    tier: Tier


def nearest_source(stores: Iterable[Member], digest: str, node: str) -> Source | None:
    """The store to load from: the nearest tier, and on the same node before another one."""
    sources = [Source(m, tier) for m in stores if m.store and (tier := m.store.tier_of(digest))]
    return max(sources, key=lambda s: (s.store.node == node, NEARNESS[s.tier], s.store.id), default=None)


def start_up_s(size_bytes: int, source: Source, node: str, knobs: Knobs) -> float:
    """Seconds until a replica is ready: bytes over the slowest tier on the way, and the fixed part."""
    rate = knobs.bytes_per_s[source.tier]
    if source.store.node != node:
        rate = min(rate, knobs.bytes_per_s[Tier.ORIGIN])
    return size_bytes / rate + knobs.init_s
