"""Moving a checkpoint's bytes between the tiers of stores, for an admin: up by Prefetch, out by Evict."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from mesh.clients.store import StoreClient
from mesh.errors import MeshError, NotFound, Unreachable, Unsuitable
from mesh.facts import NEARNESS, ClusterFacts, Kind, Member, Tier
from mesh.requests import LoadProgress
from mesh.state.mirror import Mirror

IN_USE = "CHECKPOINT_IN_USE"  # the stores' reason


@dataclass(frozen=True, slots=True)
class Fetching:
    """How far a prefetch has come, and where."""

    store_id: str
    progress: LoadProgress


class Tiers:
    """The stores, as an admin moves checkpoints in them."""

    def __init__(self, stores: StoreClient, mirror: Mirror) -> None:
        self._stores, self._mirror = stores, mirror

    def having(self, digest: str) -> list[Member]:
        """The stores that have any of it, or know it."""
        stores = self._mirror.facts.of_kind(Kind.STORE)
        return [member for member in stores if member.store and member.store.tier_of(digest)]

    async def prefetch(self, digest: str, tier: Tier, store_id: str) -> AsyncGenerator[Fetching, None]:
        """Progress until all of it is there. Without a `store_id`: where most of it is already."""
        stores = named(self._mirror.facts, store_id)
        store = max(stores, key=lambda member: (_held(member, digest), member.id))
        async with aclosing(self._stores.prefetch(store.address, digest, tier)) as moves:
            async for progress in moves:
                yield Fetching(store.id, progress)

    async def evict(self, digest: str, tier: Tier, store_id: str) -> int:
        """Bytes freed on all stores, or on one. Raises Unsuitable where it is in use; elsewhere it has gone then."""
        stores = named(self._mirror.facts, store_id)
        having = [member for member in stores if store_id or (member.store and member.store.tier_of(digest))]
        evictions = [self._evict(member, digest, tier) for member in having]
        done = await asyncio.gather(*evictions, return_exceptions=True)
        for result in done:
            if isinstance(result, BaseException):
                raise result
        return sum(freed for freed in done if isinstance(freed, int))

    async def _evict(self, store: Member, digest: str, tier: Tier) -> int:
        try:
            return await self._stores.evict(store.address, digest, tier)
        except MeshError as error:
            if error.reason != IN_USE:
                raise
            raise in_use(self._mirror.facts, store, digest) from error


def named(facts: ClusterFacts, store_id: str) -> list[Member]:
    """All stores, or the one of that id; NotFound names those there are."""
    stores = sorted(facts.of_kind(Kind.STORE), key=lambda member: member.id)
    if not stores:
        raise Unreachable("no store is running; start one", reason="NO_STORE", retry_after_s=1.0)
    chosen = [member for member in stores if store_id in ("", member.id)]
    if not chosen:
        names = ", ".join(member.id for member in stores)
        raise NotFound(f"no store {store_id!r}; there are {names}", reason="UNKNOWN_STORE")
    return chosen


def in_use(facts: ClusterFacts, store: Member, digest: str) -> Unsuitable:
    """Why a checkpoint cannot go, and who would have to let go of it first."""
    workers = [
        f"{member.id} ({replica.model or 'for adapters'})"
        for member in facts.of_kind(Kind.WORKER)
        if member.worker and member.node == store.node
        for replica in member.worker.replicas
        if replica.digest == digest
    ]
    users = ", ".join(workers) or "somebody that no facts show yet, perhaps a load or a prefetch"
    return Unsuitable(
        f"{store.id} has the checkpoint in use by {users}; it can go when its replicas have been unloaded",
        reason=IN_USE,
        metadata={"store": store.id, "checkpoint": digest, "users": ", ".join(workers)},
    )


def _held(member: Member, digest: str) -> tuple[int, int, int]:
    """How much of a checkpoint a store has: nearer bytes count first."""
    for held in member.store.checkpoints if member.store else ():
        if held.digest == digest:
            return held.dram_bytes, held.disk_bytes, NEARNESS[held.tier]
    return 0, 0, -1
