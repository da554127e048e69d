"""StoreService on the wire: protobuf in, protobuf out. Streams write to the context, so that a client's leaving ends
them at their await, and what they hold is freed there and then."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from grpc import aio
from whimbrel.inference.v1 import inference_pb2
from whimbrel.store.v1 import store_pb2 as pb
from whimbrel.store.v1 import store_pb2_grpc

from mesh.checkpoint.layout import File
from mesh.checkpoint.validate import is_safe_path
from mesh.clients.wire import TIERS, checkpoint_to, import_progress_to, load_progress_to
from mesh.errors import InvalidRequest, NotFound, Unreachable, Unsuitable
from mesh.requests import ImportProgress, LoadProgress
from services.store.catalog import Catalog, Stored
from services.store.handover import Handover
from services.store.imports import Imports
from services.store.loads import Loads
from services.store.reads import CHUNK_BYTES, Reads
from services.store.report import tier_of
from services.store.tiers import DramPool

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
        imports: Imports,
        handover: Handover,
        draining: asyncio.Event,
    ) -> None:
        self._catalog, self._dram, self._reads = catalog, dram, reads
        self._loads, self._imports, self._handover, self._draining = loads, imports, handover, draining

    def mount(self, server: aio.Server) -> None:
        """Adds the service to a server."""
        store_pb2_grpc.add_StoreServiceServicer_to_server(self, server)

    async def Import(self, request: pb.ImportRequest, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """Progress, then the checkpoint."""
        async with aclosing(self._imports.run(request.source)) as events:
            async for event in events:
                await context.write(_import_response(event))

    async def Open(self, request: pb.OpenRequest, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """Progress, then opened; pinned until the client leaves."""
        stored = self._catalog.get(request.digest)
        total = stored.summary.bytes
        async with self._loads.open(stored) as opening:
            await context.write(_progress(LoadProgress(opening.tier, 0, total)))
            async with aclosing(opening.progress()) as moves:
                async for bytes_done in moves:
                    await context.write(_progress(LoadProgress(opening.tier, bytes_done, total)))
            resident = await opening.resident()
            await context.write(_progress(LoadProgress(opening.tier, total, total)))
            with self._handover.offer(resident.segments) as token:
                shared = pb.SharedMemory(socket_path=str(self._handover.socket_path), token=token)
                opened = pb.Opened(manifest=stored.manifest_json, tier=TIERS[opening.tier], shared_memory=shared)
                await context.write(pb.OpenResponse(opened=opened))
                await self._draining.wait()  # or until the client leaves, which cancels us here
        raise Unreachable("the store is stopping; what is mapped stays readable", reason="STOPPING", retry_after_s=1.0)

    async def ReadUnits(self, request: pb.ReadUnitsRequest, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """The units, from memory if they are there."""
        stored = self._catalog.get(request.digest)
        _check_units(request.units, stored)
        async with aclosing(self._reads.units(stored, request.units)) as chunks:
            async for chunk in chunks:
                await context.write(pb.ReadUnitsResponse(unit=chunk.unit, offset=chunk.offset, data=chunk.data))

    async def ReadFile(self, request: pb.ReadFileRequest, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """One small file, whole and verified before its first byte leaves."""
        stored = self._catalog.get(request.digest)
        data = await self._reads.file(stored, _file(request.path, stored))
        for start in range(0, len(data), CHUNK_BYTES):
            await context.write(pb.ReadFileResponse(data=data[start : start + CHUNK_BYTES]))

    async def Stat(self, request: pb.StatRequest, context: Context) -> pb.StatResponse:  # noqa: N802
        """The manifest, and where the bytes lie."""
        stored = self._catalog.get(request.digest)
        tier = tier_of(request.digest, self._dram)
        return pb.StatResponse(manifest=stored.manifest_json, tier=TIERS[tier], checkpoint=_checkpoint(stored))

    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:  # noqa: N802
        """Everything on this node."""
        return pb.ListResponse(
            checkpoints=[
                pb.StoredCheckpoint(
                    checkpoint=_checkpoint(stored), tier=TIERS[tier_of(stored.manifest.digest, self._dram)]
                )
                for stored in self._catalog.all()
            ]
        )

    async def Delete(self, request: pb.DeleteRequest, context: Context) -> pb.DeleteResponse:  # noqa: N802
        """Out of memory and off the disk."""
        self._catalog.get(request.digest)
        if self._dram.in_use(request.digest):
            raise Unsuitable(
                f"checkpoint {request.digest} is in use; unload its replicas first", reason="CHECKPOINT_IN_USE"
            )
        self._dram.evict(request.digest)
        await self._catalog.delete(request.digest)
        return pb.DeleteResponse()


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


def _progress(progress: LoadProgress) -> pb.OpenResponse:
    return pb.OpenResponse(progress=load_progress_to(progress))


def _checkpoint(stored: Stored) -> inference_pb2.Checkpoint:
    return checkpoint_to(stored.summary, stored.manifest.source)
