"""What the cluster hears of this store: StoreFacts, published after each change."""

from dataclasses import replace

from mesh.facts import CheckpointFacts, StoreFacts, Tier
from mesh.state.leases import Membership
from services.store.catalog import Catalog, Stored
from services.store.origins import Origins
from services.store.quarantine import Quarantine
from services.store.room import Room
from services.store.tiers import DramPool


def facts(catalog: Catalog, dram: DramPool, room: Room, quarantine: Quarantine, origins: Origins) -> StoreFacts:
    """The store's facts as they are now."""
    return StoreFacts(
        disk_used_bytes=catalog.used_bytes,
        dram_capacity_bytes=dram.capacity_bytes,
        dram_used_bytes=dram.used_bytes,
        checkpoints=tuple(facts_of(stored, dram) for stored in catalog.all()),
        disk_capacity_bytes=room.capacity_bytes or 0,
        corrupt_units=quarantine.corrupt_units,
        origins=len(origins.urls),
    )


def facts_of(stored: Stored, dram: DramPool) -> CheckpointFacts:
    """One checkpoint of the catalogue: its nearest tier that holds all of it, and its bytes on each."""
    digest = stored.manifest.digest
    tier = Tier.DRAM if dram.holds(digest) else Tier.DISK if stored.complete else Tier.ORIGIN
    return CheckpointFacts(
        digest, stored.summary.bytes, tier, disk_bytes=stored.disk_bytes, dram_bytes=dram.bytes_of(digest)
    )


def publish(membership: Membership, facts: StoreFacts) -> None:
    """Tells the cluster, soon."""
    membership.publish(replace(membership.member, store=facts))
