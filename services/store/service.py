"""StoreService on the wire: protobuf in, protobuf out. Streams write to the context, so that a client's leaving ends
them at their await, and what they hold is freed there and then."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

import grpc
from grpc import aio
from whimbrel.inference.v1 import inference_pb2
from whimbrel.store.v1 import store_pb2 as pb
from whimbrel.store.v1 import store_pb2_grpc

from mesh.checkpoint.layout import File, is_digest
from mesh.checkpoint.validate import is_safe_path
from mesh.clients.wire import TIERS, checkpoint_to, import_progress_to, load_progress_to
from mesh.errors import InvalidRequest, NotFound, Unreachable
from mesh.facts import Tier
from mesh.requests import ImportProgress, LoadProgress
from services.store.catalog import Catalog, Stored
from services.store.handover import Handover
from services.store.imports import Imports
from services.store.learn import Learner
from services.store.loads import Loads
from services.store.nearest import nearest
from services.store.reads import CHUNK_BYTES, Reading, Reads
from services.store.report import facts_of
from services.store.room import Room
from services.store.segments import Segment
from services.store.slots import Slots
from services.store.suppliers import not_here
from services.store.tiers import DramPool
from services.store.unit_wire import unit_chunk_to

NAME = "whimbrel.store.v1.StoreService"
Context = aio.ServicerContext[Any, Any]


class StoreServicer(store_pb2_grpc.StoreServiceServicer):
    """Answers for one store."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        dram: DramPool,
        reads: Reads,
        loads: Loads,
        learner: Learner,
        room: Room,
        imports: Imports,
        handover: Handover,
        slots: Slots,
        draining: asyncio.Event,
    ) -> None:
        self._catalog, self._dram, self._reads = catalog, dram, reads
        self._loads, self._imports, self._handover, self._slots = loads, imports, handover, slots
        self._learner, self._room, self._draining = learner, room, draining

    def mount(self, server: aio.Server) -> None:
        """Adds the service to a server; of two handlers for ReadUnits the first one counts."""
        units = grpc.unary_stream_rpc_method_handler(
            self.ReadUnits,
            request_deserializer=pb.ReadUnitsRequest.FromString,
            response_serializer=unit_chunk_to,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, {"ReadUnits": units}),))
        store_pb2_grpc.add_StoreServiceServicer_to_server(self, server)

    async def Import(self, request: pb.ImportRequest, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """Progress, then the checkpoint."""
        base = await self._base(request.base)
        async with aclosing(self._imports.run(request.source, base)) as events:
            async for event in events:
                await context.write(_import_response(event))

    async def _base(self, digest: str) -> Stored | None:
        if digest and not is_digest(digest):
            raise InvalidRequest.field("base", "must be a digest: 64 lowercase hex digits")
        return await self._learner.find(digest) if digest else None

    async def Open(self, request: pb.OpenRequest, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """Opened, units as they come, complete; pinned until the client leaves."""
        stored = await self._learner.find(request.digest)
        async with self._loads.open(stored) as opening:
            resident = await opening.memory()
            with self._offered(resident.segments, self._dram.segment_bytes) as shared:
                opened = pb.Opened(manifest=stored.manifest_json, tier=TIERS[opening.tier], shared_memory=shared)
                await context.write(pb.OpenResponse(opened=opened))
                async with aclosing(opening.steps()) as steps:
                    async for step in steps:
                        progress = LoadProgress(opening.tier, step.bytes_done, stored.summary.bytes)
                        await context.write(pb.OpenResponse(progress=load_progress_to(progress)))
                        if step.units:
                            await context.write(pb.OpenResponse(units=pb.UnitsReady(units=step.units)))
                await opening.complete()
                await context.write(pb.OpenResponse(complete=pb.Complete()))
                await self._draining.wait()  # or until the client leaves, which cancels us here
        raise Unreachable("the store is stopping; what is mapped stays readable", reason="STOPPING", retry_after_s=1.0)

    async def ReadUnits(self, request: pb.ReadUnitsRequest, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """The units, from memory if they are there."""
        stored = self._catalog.get(request.digest) if request.here_only else await self._learner.find(request.digest)
        _check_units(request.units, stored)
        if request.here_only and (absent := nearest(request.units, stored, self._dram).absent):
            raise not_here(request.digest, absent)
        async with aclosing(self._reads.units(stored, request.units)) as chunks:
            async for chunk in chunks:
                await context.write(chunk)  # serialized there and then: see wire.py

    async def ReadThroughRing(  # type: ignore[override]  # noqa: N802
        self, requests: AsyncIterator[pb.ReadThroughRingRequest], context: Context
    ) -> None:
        """The units through slots of shared memory, each filled again once the client has given it back."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("command") != "read":
            raise InvalidRequest.field("read", "must come first")
        stored = await self._learner.find(first.read.digest)
        _check_units(first.read.units, stored)
        async with self._slots.ring() as segments:
            views = [segment.view for segment in segments]
            async with self._reads.through(stored, first.read.units, views) as reading:
                with self._offered(segments, self._slots.slot_bytes) as shared:
                    await context.write(pb.ReadThroughRingResponse(ring=shared))
                    given_out = asyncio.Event()
                    await _first_of(
                        self._give_out(reading, context, given_out), _take_back(reading, requests, given_out)
                    )

    async def ReadFile(self, request: pb.ReadFileRequest, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """One small file, whole and verified before its first byte leaves."""
        stored = await self._learner.find(request.digest)
        data = await self._reads.file(stored, _file(request.path, stored))
        for start in range(0, len(data), CHUNK_BYTES):
            await context.write(pb.ReadFileResponse(data=data[start : start + CHUNK_BYTES]))

    async def Prefetch(self, request: pb.PrefetchRequest, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """Progress, until the tier has all of it."""
        stored, tier = await self._learner.find(request.digest), _tier(request.tier)
        total_bytes = stored.summary.bytes
        async with self._loads.prefetch(stored, tier) as opening:
            async with aclosing(opening.steps()) as steps:
                async for step in steps:
                    await context.write(_prefetched(LoadProgress(opening.tier, step.bytes_done, total_bytes)))
            await opening.complete()
            await context.write(_prefetched(LoadProgress(opening.tier, total_bytes, total_bytes)))

    async def Evict(self, request: pb.EvictRequest, context: Context) -> pb.EvictResponse:  # noqa: N802
        """Out of one tier."""
        digest, tier = self._catalog.get(request.digest).manifest.digest, _tier(request.tier)
        freed_bytes = await self._room.evict(digest) if tier is Tier.DISK else self._dram.evict(digest)
        return pb.EvictResponse(freed_bytes=freed_bytes)

    async def Stat(self, request: pb.StatRequest, context: Context) -> pb.StatResponse:  # noqa: N802
        """The manifest, and where the bytes lie."""
        stored = await self._learner.find(request.digest)
        facts = facts_of(stored, self._dram)
        return pb.StatResponse(
            manifest=stored.manifest_json,
            tier=TIERS[facts.tier],
            checkpoint=_checkpoint(stored),
            disk_bytes=facts.disk_bytes,
            dram_bytes=facts.dram_bytes,
        )

    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:  # noqa: N802
        """Everything on this node."""
        return pb.ListResponse(checkpoints=[_stored(stored, self._dram) for stored in self._catalog.all()])

    async def Delete(self, request: pb.DeleteRequest, context: Context) -> pb.DeleteResponse:  # noqa: N802
        """Out of memory and off the disk."""
        self._catalog.get(request.digest)
        self._dram.evict(request.digest)
        await self._catalog.delete(request.digest)
        return pb.DeleteResponse()

    async def _give_out(self, reading: Reading, context: Context, given_out: asyncio.Event) -> None:
        """All slots, and complete; the ring stays until the client has taken the last ones and leaves, or we stop."""
        async with aclosing(reading.filled()) as slots:
            async for filled in slots:
                message = pb.SlotFilled(slot=filled.slot, unit=filled.unit, offset=filled.offset, bytes=filled.bytes)
                await context.write(pb.ReadThroughRingResponse(filled=message))
        given_out.set()
        await context.write(pb.ReadThroughRingResponse(complete=pb.Complete()))
        await self._draining.wait()

    @contextmanager
    def _offered(self, segments: Sequence[Segment], segment_bytes: int) -> Iterator[pb.SharedMemory]:
        with self._handover.offer(segments) as token:
            socket_path = str(self._handover.socket_path)
            yield pb.SharedMemory(socket_path=socket_path, token=token, segment_bytes=segment_bytes)


async def _take_back(
    reading: Reading, requests: AsyncIterator[pb.ReadThroughRingRequest], given_out: asyncio.Event
) -> None:
    """Slots, until the client says no more. Raises InvalidRequest when it has not been given all that it asked for."""
    async for request in requests:
        if request.WhichOneof("command") != "free":
            raise InvalidRequest.field("free", "is all that may come after read")
        reading.free(request.free.slot)
    if not given_out.is_set():
        raise InvalidRequest.field("free", "the stream ended before all units had been sent")


async def _first_of(*works: Coroutine[object, object, None]) -> None:
    """Runs them side by side until one has ended, which ends the others; raises what it raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tier(asked: "inference_pb2.Tier.ValueType") -> Tier:
    """Raises InvalidRequest."""
    tiers = {inference_pb2.TIER_UNSPECIFIED: Tier.DRAM, TIERS[Tier.DRAM]: Tier.DRAM, TIERS[Tier.DISK]: Tier.DISK}
    if asked not in tiers:
        raise InvalidRequest.field("tier", "must be TIER_DISK or TIER_DRAM")
    return tiers[asked]


def _prefetched(progress: LoadProgress) -> pb.PrefetchResponse:
    return pb.PrefetchResponse(progress=load_progress_to(progress))


def _stored(stored: Stored, dram: DramPool) -> pb.StoredCheckpoint:
    facts = facts_of(stored, dram)
    return pb.StoredCheckpoint(
        checkpoint=_checkpoint(stored),
        tier=TIERS[facts.tier],
        disk_bytes=facts.disk_bytes,
        dram_bytes=facts.dram_bytes,
    )


def _check_units(units: Sequence[int], stored: Stored) -> None:
    if not units:
        raise InvalidRequest.field("units", "must name at least one unit")
    if max(units) >= stored.summary.units:
        raise InvalidRequest.field("units", f"{max(units)} is out of range: there are {stored.summary.units} units")


def _file(path: str, stored: Stored) -> File:
    if not is_safe_path(path):
        raise InvalidRequest.field("path", "must be a path that the manifest's files name")
    for file in stored.manifest.files:
        if file.path == path:
            return file
    raise NotFound(f"checkpoint {stored.manifest.digest} has no file {path!r}", reason="UNKNOWN_FILE")


def _import_response(event: ImportProgress | Stored) -> pb.ImportResponse:
    if isinstance(event, Stored):
        return pb.ImportResponse(checkpoint=_checkpoint(event))
    return pb.ImportResponse(progress=import_progress_to(event))


def _checkpoint(stored: Stored) -> inference_pb2.Checkpoint:
    return checkpoint_to(stored.summary, stored.manifest.source)
