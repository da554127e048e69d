"""Calling a store: import, open, read, stat, list, delete. Fetching shared memory is mesh/segment.py's."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from whimbrel.store.v1 import store_pb2 as pb
from whimbrel.store.v1.store_pb2_grpc import StoreServiceStub

from mesh.checkpoint import layout
from mesh.checkpoint.errors import ManifestError
from mesh.checkpoint.layout import Manifest
from mesh.clients.channel import Channels, limit, stream, unary
from mesh.clients.wire import TIERS, checkpoint_from, import_progress_from, load_progress_from, tier_from
from mesh.errors import Broken, DataLoss
from mesh.facts import CheckpointSummary, Tier
from mesh.requests import ImportProgress, LoadProgress

if TYPE_CHECKING:
    from whimbrel.store.v1.store_pb2_grpc import StoreServiceAsyncStub  # of the type stubs alone

IMPORT_S = 6 * 3600.0
PREFETCH_S = 6 * 3600.0
READ_S = 3600.0
FILE_S = 60.0
DELETE_S = 60.0


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """Where a process on the store's node gets the parts: arguments of mesh.segment.fetch_parts."""

    socket_path: Path
    token: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint in the store's memory; `tier` is where its bytes were when asked for."""

    manifest: Manifest
    tier: Tier
    shared_memory: SharedMemory


@dataclass(frozen=True, slots=True)
class UnitChunk:
    """Bytes of a unit, by its index in the manifest; `offset` is within the unit."""

    unit: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Stat:
    """A checkpoint, and the nearest tier that holds all of it."""

    manifest: Manifest
    tier: Tier
    summary: CheckpointSummary


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """An entry of a store's list."""

    summary: CheckpointSummary
    tier: Tier


class Opening:
    """A checkpoint on its way into the store's memory. First `progress`, to its end, then `opened`."""

    def __init__(self, responses: AsyncGenerator[pb.OpenResponse, None]) -> None:
        self._responses = responses
        self._opened: Opened | None = None

    async def progress(self) -> AsyncGenerator[LoadProgress, None]:
        """Ends when all bytes are in memory. Raises NotFound, NoRoom, DataLoss, Unreachable."""
        while self._opened is None:
            response = await anext(self._responses, None)
            if response is None:
                raise Broken("the store ended Open before it had opened")
            if response.WhichOneof("event") == "opened":
                self._opened = await _opened(response.opened)
            else:
                yield load_progress_from(response.progress)

    async def opened(self) -> Opened:
        """The checkpoint in memory; what is left of the progress is skipped."""
        async for _ in self.progress():
            pass
        assert self._opened is not None
        return self._opened


class StoreClient:
    """Calls any store by its address."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def import_checkpoint(
        self, address: str, source: str, base: str = ""
    ) -> AsyncGenerator[ImportProgress | CheckpointSummary, None]:
        """Progress, then the checkpoint. `base` is of an adapter: the digest of what it adapts. Leaving cancels it."""
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
            yield Opening(responses)

    async def read_units(self, address: str, digest: str, units: Sequence[int]) -> AsyncGenerator[UnitChunk, None]:
        """Whole units in the order given, in chunks of about 1 MiB. Raises DataLoss before a corrupt unit is whole."""
        request = pb.ReadUnitsRequest(digest=digest, units=units)
        call = self._stub(address).ReadUnits(request, timeout=limit(READ_S))
        async with aclosing(stream(call, _peer(address))) as responses:
            async for response in responses:
                yield UnitChunk(response.unit, response.offset, response.data)

    async def read_file(self, address: str, digest: str, path: str) -> bytes:
        """One of the checkpoint's small files, by the path that its manifest gives it."""
        call = self._stub(address).ReadFile(pb.ReadFileRequest(digest=digest, path=path), timeout=limit(FILE_S))
        async with aclosing(stream(call, _peer(address))) as responses:
            return b"".join([response.data async for response in responses])

    async def stat(self, address: str, digest: str) -> Stat:
        """The manifest, validated, and where the bytes lie. Raises NotFound."""
        request = pb.StatRequest(digest=digest)
        response = await unary(self._stub(address).Stat(request, timeout=limit()), _peer(address))
        manifest = await _manifest(response.manifest)
        return Stat(manifest, tier_from(response.tier), checkpoint_from(response.checkpoint))

    async def list(self, address: str) -> tuple[StoredCheckpoint, ...]:
        """Everything in the store, by digest."""
        response = await unary(self._stub(address).List(pb.ListRequest(), timeout=limit()), _peer(address))
        return tuple(StoredCheckpoint(checkpoint_from(c.checkpoint), tier_from(c.tier)) for c in response.checkpoints)

    async def delete(self, address: str, digest: str) -> None:
        """Removes it from the store. Raises NotFound, and Unsuitable while somebody has it open."""
        request = pb.DeleteRequest(digest=digest)
        await unary(self._stub(address).Delete(request, timeout=limit(DELETE_S)), _peer(address))

    async def prefetch(self, address: str, digest: str, tier: Tier) -> AsyncGenerator[LoadProgress, None]:
        """Brings it to DISK or DRAM, behind what requests wait for; ends when all of it is there. Leaving gives up."""
        request = pb.PrefetchRequest(digest=digest, tier=TIERS[tier])
        call = self._stub(address).Prefetch(request, timeout=limit(PREFETCH_S))
        async with aclosing(stream(call, _peer(address))) as responses:
            async for response in responses:
                yield load_progress_from(response.progress)

    async def evict(self, address: str, digest: str, tier: Tier) -> int:
        """Drops it from DISK or DRAM; returns the bytes freed. Raises NotFound, and Unsuitable while it is in use."""
        request = pb.EvictRequest(digest=digest, tier=TIERS[tier])
        response = await unary(self._stub(address).Evict(request, timeout=limit(DELETE_S)), _peer(address))
        return response.freed_bytes

    def _stub(self, address: str) -> "StoreServiceAsyncStub":
        return StoreServiceStub(self._channels.to(address))


def _peer(address: str) -> str:
    return f"store at {address}"


async def _opened(message: pb.Opened) -> Opened:
    shared = SharedMemory(Path(message.shared_memory.socket_path), message.shared_memory.token)
    return Opened(await _manifest(message.manifest), tier_from(message.tier), shared)


async def _manifest(manifest_json: bytes) -> Manifest:
    """Parsed and validated off the loop: that of many experts takes a while."""

    def read() -> Manifest:
        manifest = layout.parse(manifest_json)
        layout.validate(manifest)
        return manifest

    try:
        return await asyncio.to_thread(read)
    except ManifestError as error:
        raise DataLoss(f"the store sent a manifest that we cannot use: {error}", reason="BAD_MANIFEST") from error
