"""Calling a store: import, open, read, stat, list, prefetch, evict, delete. Shared memory is mesh/segment.py's."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whimbrel.store.v1 import store_pb2 as pb
from whimbrel.store.v1.store_pb2_grpc import StoreServiceStub

from mesh.checkpoint.layout import Manifest
from mesh.clients.channel import Channels, limit, stream, unary
from mesh.clients.manifests import Manifests
from mesh.clients.opening import Opened, Opening, RingReading, SlotFilled, UnitsReady
from mesh.clients.outgoing import Outgoing
from mesh.clients.unit_wire import UnitChunk, unit_chunk_from
from mesh.clients.wire import TIERS, checkpoint_from, import_progress_from, load_progress_from, tier_from
from mesh.facts import CheckpointSummary, Tier
from mesh.requests import ImportProgress, LoadProgress

if TYPE_CHECKING:
    from grpc import aio
    from whimbrel.store.v1.store_pb2_grpc import StoreServiceAsyncStub  # of the type stubs alone

__all__ = [
    "Opened",
    "Opening",
    "RingReading",
    "SlotFilled",
    "Stat",
    "StoreClient",
    "StoredCheckpoint",
    "UnitChunk",
    "UnitsReady",
]

IMPORT_S = 6 * 3600.0
READ_S = 3600.0
FILE_S = 60.0
DELETE_S = 60.0
READ_UNITS = "/whimbrel.store.v1.StoreService/ReadUnits"


@dataclass(frozen=True, slots=True)
class Stat:
    """A checkpoint, the nearest tier that holds all of it, and its bytes on each."""

    manifest: Manifest
    tier: Tier
    summary: CheckpointSummary
    disk_bytes: int = 0
    dram_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """An entry of a store's list."""

    summary: CheckpointSummary
    tier: Tier
    disk_bytes: int = 0
    dram_bytes: int = 0


class StoreClient:
    """Calls any store by its address."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._manifests = Manifests()

    async def import_checkpoint(
        self, address: str, source: str, base: str = ""
    ) -> AsyncGenerator[ImportProgress | CheckpointSummary, None]:
        """Progress, then the checkpoint. `source` is an address as the proto has them, `base` the digest of what an
        adapter adapts. Leaving cancels the import; the next one of the same source goes on from there."""
        call = self._stub(address).Import(pb.ImportRequest(source=source, base=base), timeout=limit(IMPORT_S))
        async with aclosing(stream(call, _peer(address))) as responses:
            async for response in responses:
                if response.WhichOneof("event") == "checkpoint":
                    yield checkpoint_from(response.checkpoint)
                else:
                    yield import_progress_from(response.progress)

    @asynccontextmanager
    async def open(self, address: str, digest: str) -> AsyncIterator[Opening]:
        """Has the checkpoint brought into the store's memory, where it stays until the context is closed.

        Close it only when nothing maps the bytes any more. The stream is what holds them, so it has no deadline, not
        even that of the call being served: who waits for the load gives up by leaving the context.
        """
        call = self._stub(address).Open(pb.OpenRequest(digest=digest))
        async with aclosing(stream(call, _peer(address))) as responses:
            yield Opening(digest, responses, self._manifests)

    async def read_units(
        self, address: str, digest: str, units: Sequence[int], *, here_only: bool = False
    ) -> AsyncGenerator[UnitChunk, None]:
        """Whole units in the order given, in chunks of about 1 MiB. Raises DataLoss before a corrupt unit is whole.

        Units that are not on the store's node are fetched by it first; `here_only` raises NotFound instead.
        """
        method: aio.UnaryStreamMultiCallable[pb.ReadUnitsRequest, bytes] = self._channels.to(address).unary_stream(
            READ_UNITS, pb.ReadUnitsRequest.SerializeToString
        )
        request = pb.ReadUnitsRequest(digest=digest, units=units, here_only=here_only)
        call = method(request, timeout=limit(READ_S))
        async with aclosing(stream(call, _peer(address))) as messages:
            async for message in messages:
                yield unit_chunk_from(message)

    @asynccontextmanager
    async def read_through_ring(self, address: str, digest: str, units: Sequence[int]) -> AsyncIterator[RingReading]:
        """The same for a process on the store's node, through shared memory; leaving gives the ring back."""
        commands = Outgoing(pb.ReadThroughRingRequest(read=pb.ReadUnitsRequest(digest=digest, units=units)))

        def free(slot: int) -> None:  # as many wait as the store has filled
            commands.say(pb.ReadThroughRingRequest(free=pb.SlotFree(slot=slot)))

        call = self._stub(address).ReadThroughRing(commands.messages(), timeout=limit(READ_S))
        commands.end_with(call)
        async with aclosing(stream(call, _peer(address))) as responses:
            yield RingReading(responses, free)

    async def prefetch(self, address: str, digest: str, tier: Tier = Tier.DRAM) -> AsyncGenerator[LoadProgress, None]:
        """Brings a checkpoint to a tier of the store's node, DISK or DRAM, behind the loads that requests wait for.

        Progress, to its end. Leaving gives up. Raises NotFound, NoRoom, DataLoss, Unreachable.
        """
        call = self._stub(address).Prefetch(pb.PrefetchRequest(digest=digest, tier=TIERS[tier]), timeout=limit(READ_S))
        async with aclosing(stream(call, _peer(address))) as responses:
            async for response in responses:
                yield load_progress_from(response.progress)

    async def evict(self, address: str, digest: str, tier: Tier = Tier.DRAM) -> int:
        """Drops it from a tier, DISK or DRAM; the bytes that the tier got back. Raises NotFound, Unsuitable."""
        request = pb.EvictRequest(digest=digest, tier=TIERS[tier])
        response = await unary(self._stub(address).Evict(request, timeout=limit(DELETE_S)), _peer(address))
        return response.freed_bytes

    async def read_file(self, address: str, digest: str, path: str) -> bytes:
        """One of the checkpoint's small files, by the path that its manifest gives it."""
        call = self._stub(address).ReadFile(pb.ReadFileRequest(digest=digest, path=path), timeout=limit(FILE_S))
        async with aclosing(stream(call, _peer(address))) as responses:
            return b"".join([response.data async for response in responses])

    async def stat(self, address: str, digest: str) -> Stat:
        """The manifest, validated, and where the bytes lie. Raises NotFound."""
        request = pb.StatRequest(digest=digest)
        response = await unary(self._stub(address).Stat(request, timeout=limit()), _peer(address))
        return Stat(
            await self._manifests.of(response.manifest),
            tier_from(response.tier),
            checkpoint_from(response.checkpoint),
            response.disk_bytes,
            response.dram_bytes,
        )

    async def list(self, address: str) -> tuple[StoredCheckpoint, ...]:
        """Everything in the store, by digest."""
        response = await unary(self._stub(address).List(pb.ListRequest(), timeout=limit()), _peer(address))
        return tuple(
            StoredCheckpoint(checkpoint_from(c.checkpoint), tier_from(c.tier), c.disk_bytes, c.dram_bytes)
            for c in response.checkpoints
        )

    async def delete(self, address: str, digest: str) -> None:
        """Removes it from the store. Raises NotFound, and Unsuitable while somebody has it open."""
        request = pb.DeleteRequest(digest=digest)
        await unary(self._stub(address).Delete(request, timeout=limit(DELETE_S)), _peer(address))

    def _stub(self, address: str) -> "StoreServiceAsyncStub":
        return StoreServiceStub(self._channels.to(address))


def _peer(address: str) -> str:
    return f"store at {address}"
