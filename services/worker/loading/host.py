"""The host device: a part is the store's own shared memory, mapped; elsewhere, memory that the store's stream fills."""

import asyncio
import mmap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
import torch
from torch import Tensor

from mesh.checkpoint.errors import CorruptUnit
from mesh.checkpoint.layout import Manifest
from mesh.checkpoint.verify import check_unit
from mesh.clients.store import Opening, SharedMemory, StoreClient
from mesh.errors import DataLoss, NoRoom, Unreachable
from mesh.facts import Tier
from mesh.requests import LoadProgress
from mesh.segment import fetch_parts, map_parts
from services.worker.settings import Transport

log = structlog.get_logger()
STREAM_INSTEAD = frozenset({"SHARED_MEMORY_UNREACHABLE", "LARGER_THAN_DRAM"})
Tell = Callable[[LoadProgress], None]


@dataclass(frozen=True, slots=True)
class Weights:
    """A checkpoint's parts in memory, uint8 [bytes] each, and the tier that they came from."""

    parts: list[Tensor]
    tier: Tier


class Host:
    """Gets parts into this machine's memory: zero-copy where the store shares it, through gRPC where it cannot."""

    def __init__(self, stores: StoreClient, transport: Transport) -> None:
        self._stores, self._transport = stores, transport

    @asynccontextmanager
    async def bytes_of(self, address: str, manifest: Manifest, tell: Tell) -> AsyncIterator[Weights]:
        """The parts, for as long as the context is open; drop every view of them before it closes."""
        if self._transport is not Transport.STREAM:
            async with self._stores.open(address, manifest.digest) as opening:
                if weights := await self._shared(opening, manifest, tell):
                    yield weights
                    weights.parts.clear()  # unmapped before the store may use the memory for something else
                    return
        yield await self._streamed(address, manifest, tell)

    async def _shared(self, opening: Opening, manifest: Manifest, tell: Tell) -> Weights | None:
        """The store's memory, mapped; None when it cannot be, and the stream may be used instead."""
        try:
            async for progress in opening.progress():
                tell(progress)
            opened = await opening.opened()
            return Weights(await _mapped(opened.shared_memory, manifest), opened.tier)
        except (Unreachable, NoRoom) as error:
            if self._transport is Transport.SHARED or error.reason not in STREAM_INSTEAD:
                raise
            log.info("no shared memory, so the weights are streamed", why=error.message)
            return None

    async def _streamed(self, address: str, manifest: Manifest, tell: Tell) -> Weights:
        """Own memory, filled unit by unit; each unit's hash is checked, for it has crossed a network."""
        tier = (await self._stores.stat(address, manifest.digest)).tier
        parts = [torch.empty(part.bytes, dtype=torch.uint8) for part in manifest.parts]
        views = [memoryview(part.numpy().data) for part in parts]
        total, done = sum(unit.bytes for unit in manifest.units), 0
        async for chunk in self._stores.read_units(address, manifest.digest, range(len(manifest.units))):
            unit = manifest.units[chunk.unit]
            if chunk.offset + len(chunk.data) > unit.bytes:
                raise DataLoss(f"the store sent more bytes than unit {unit.name} has", reason="BAD_STREAM")
            begin = unit.offset + chunk.offset
            views[unit.part][begin : begin + len(chunk.data)] = chunk.data
            done += len(chunk.data)
            tell(LoadProgress(tier, done, total))
        await asyncio.to_thread(_verify, manifest, views)
        return Weights(parts, tier)


async def _mapped(shared: SharedMemory, manifest: Manifest) -> list[Tensor]:
    descriptors = await fetch_parts(shared.socket_path, shared.token, len(manifest.parts))
    mappings = map_parts(descriptors, [part.bytes for part in manifest.parts])
    return [_tensor(mapping) for mapping in mappings]


def _tensor(mapping: mmap.mmap) -> Tensor:
    return torch.frombuffer(mapping, dtype=torch.uint8)


def _verify(manifest: Manifest, views: list[memoryview]) -> None:
    try:
        for index, unit in enumerate(manifest.units):
            check_unit(manifest, index, views[unit.part][unit.offset : unit.offset + unit.bytes])
    except CorruptUnit as error:
        raise DataLoss(str(error), reason="CORRUPT_UNIT") from error
