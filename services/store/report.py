"""What the cluster hears of this store: StoreFacts, published after each change."""

from dataclasses import replace

from mesh.facts import CheckpointFacts, StoreFacts, Tier
from mesh.state.leases import Membership
from services.store.catalog import Catalog
from services.store.tiers import DramPool


def facts(catalog: Catalog, dram: DramPool) -> StoreFacts:
    """The store's facts as they are now."""
    return StoreFacts(
        disk_used_bytes=catalog.used_bytes,
        dram_capacity_bytes=dram.capacity_bytes,
        dram_used_bytes=dram.used_bytes,
        checkpoints=tuple(
            CheckpointFacts(stored.manifest.digest, stored.summary.bytes, tier_of(stored.manifest.digest, dram))
            for stored in catalog.all()
        ),
    )


def tier_of(digest: str, dram: DramPool) -> Tier:
    """The nearest tier that holds all of a checkpoint of the catalogue."""
    return Tier.DRAM if dram.holds(digest) else Tier.DISK


def publish(membership: Membership, catalog: Catalog, dram: DramPool) -> None:
    """Tells the cluster, soon."""
    membership.publish(replace(membership.member, store=facts(catalog, dram)))
