"""How much of the disk checkpoints may take, and what leaves it: only what can be had again, and the oldest first."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from mesh.checkpoint.errors import StorageFailed
from mesh.checkpoint.staging import SPARE_BYTES
from mesh.errors import NoRoom, Unsuitable
from policy.disk_eviction import tail
from services.store.catalog import Catalog, Stored
from services.store.faults import as_mesh_error
from services.store.origins import Origins
from services.store.peers import Peers
from services.store.pins import Pins

log = structlog.get_logger()
RETRY_S = 5.0
Count = Callable[[], int]


@dataclass(frozen=True, slots=True, eq=False)
class _Claim:
    """What somebody writes: bytes that are `outstanding`, and those `unlisted`, which the catalogue does not count."""

    outstanding: Count
    unlisted: Count


class Room:
    """`capacity_bytes` None: as much as the file system has."""

    def __init__(
        self, catalog: Catalog, pins: Pins, peers: Peers, origins: Origins, capacity_bytes: int | None
    ) -> None:
        self._catalog, self._pins, self._peers, self._origins = catalog, pins, peers, origins
        self.capacity_bytes = capacity_bytes
        self._claims: set[_Claim] = set()
        self._making = asyncio.Lock()

    @asynccontextmanager
    async def reserved(self, outstanding: Count, unlisted: Count = lambda: 0) -> AsyncIterator[None]:
        """Keeps room for what `outstanding()` says is still to be written. What `unlisted()` says has been, beside the
        checkpoints of the catalogue, counts against the capacity. Raises NoRoom; then nothing is kept."""
        claim = _Claim(outstanding, unlisted)
        async with self._making:
            await self._make(claim)
            self._claims.add(claim)
        try:
            yield
        finally:
            self._claims.discard(claim)

    async def evict(self, digest: str) -> int:
        """Takes all units of a checkpoint off the disk; returns their bytes. Its manifest stays: it can be fetched.

        Raises NotFound, and Unsuitable while somebody uses it or when it is the only copy.
        """
        stored = self._catalog.get(digest)
        if not await self._elsewhere(stored):
            raise Unsuitable(
                f"checkpoint {digest} is in no other store that keeps it and in no origin of WHIMBREL_ORIGINS: evicting"
                " it would lose it; Delete it if that is what you want",
                reason="ONLY_COPY",
            )
        if self._pins.held(digest):
            raise Unsuitable(f"checkpoint {digest} is in use; unload its replicas first", reason="CHECKPOINT_IN_USE")
        return await self._drop(stored, stored.disk_bytes)

    async def _make(self, claim: _Claim) -> None:
        passed_over: set[str] = set()
        while (lacking := await asyncio.to_thread(self._lacking_bytes, (*self._claims, claim))) > 0:
            stored = await self._next_to_leave(passed_over)
            if stored is None:
                raise NoRoom(
                    f"the disk lacks {lacking} of {claim.outstanding()} bytes, and what is on it is in use or the only "
                    "copy; delete some, raise WHIMBREL_DISK_BYTES, or name an origin that has them in WHIMBREL_ORIGINS",
                    reason="DISK_FULL",
                    retry_after_s=RETRY_S,
                )
            passed_over.add(stored.manifest.digest)
            await self._drop(stored, lacking)

    async def _next_to_leave(self, passed_over: set[str]) -> Stored | None:
        """The least recently used checkpoint that nobody uses and that can be had again."""
        for stored in sorted(self._catalog.all(), key=lambda s: self._catalog.used_s(s.manifest.digest)):
            digest = stored.manifest.digest
            if digest in passed_over or not stored.units_on_disk or self._pins.held(digest):
                continue
            if await self._elsewhere(stored) and not self._pins.held(digest):
                return stored
            passed_over.add(digest)
        return None

    async def _elsewhere(self, stored: Stored) -> bool:
        return self._peers.keep(stored.manifest.digest) or await self._origins.has(stored.manifest)

    async def _drop(self, stored: Stored, wanted_bytes: int) -> int:
        """The caller has just seen that nobody uses it; from here to `forget` nothing is awaited."""
        units = tail(stored.units_on_disk, stored.presence.extents, wanted_bytes)
        stored.presence.forget(units)
        try:
            freed = await asyncio.shield(asyncio.to_thread(stored.presence.drop, units))
        except StorageFailed as error:
            raise as_mesh_error(error) from error
        log.info("units evicted from disk", digest=stored.manifest.digest, units=len(units), freed_bytes=freed)
        self._catalog.changed()
        return freed

    def _lacking_bytes(self, claims: Sequence[_Claim]) -> int:
        outstanding = sum(claim.outstanding() for claim in claims)
        disk = os.statvfs(self._catalog.root)
        lacking = outstanding - (disk.f_bavail * disk.f_frsize - SPARE_BYTES)
        if self.capacity_bytes is not None:
            used = self._catalog.used_bytes + sum(claim.unlisted() for claim in claims)
            lacking = max(lacking, outstanding + used - self.capacity_bytes)
        return lacking
