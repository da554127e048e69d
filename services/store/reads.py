"""Units and small files as bytes, for callers that cannot map them. Nothing whole leaves before its hash is right."""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from blake3 import blake3

from mesh.checkpoint.errors import CorruptUnit, Damaged
from mesh.checkpoint.layout import File, Unit
from mesh.checkpoint.verify import FILES
from services.store.catalog import Catalog, Stored
from services.store.faults import as_mesh_error
from services.store.pins import Pins
from services.store.tiers import DramPool, Resident

CHUNK_BYTES = 1 << 20  # the fastest message size over gRPC


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of a unit; `offset` is within it."""

    unit: int
    offset: int
    data: bytes


class Reads:
    """Reads what the catalogue has, from the nearest tier. What proves damaged is quarantined, and DataLoss raised."""

    def __init__(self, catalog: Catalog, dram: DramPool, pins: Pins, *, verify: bool) -> None:
        self._catalog, self._dram, self._pins, self._verify = catalog, dram, pins, verify

    async def units(self, stored: Stored, indexes: Sequence[int]) -> AsyncGenerator[Chunk, None]:
        """Whole units in the order given, the checkpoint pinned meanwhile. `indexes` must be in range."""
        digest = stored.manifest.digest
        with self._pins.hold(digest):
            resident = self._dram.get(digest)
            source = _from_memory(stored, resident, indexes) if resident else self._from_disk(stored, indexes)
            async with aclosing(source) as chunks:
                try:
                    async for chunk in chunks:
                        yield chunk
                except Damaged as error:
                    await self._catalog.quarantine(digest, str(error))
                    raise as_mesh_error(error) from error

    async def file(self, stored: Stored, file: File) -> bytes:
        """One of the checkpoint's small files."""
        with self._pins.hold(stored.manifest.digest):
            try:
                return await asyncio.to_thread(_read_file, stored, file)
            except Damaged as error:
                await self._catalog.quarantine(stored.manifest.digest, str(error))
                raise as_mesh_error(error) from error

    async def _from_disk(self, stored: Stored, indexes: Sequence[int]) -> AsyncGenerator[Chunk, None]:
        with _opened(stored) as descriptors:
            for index in indexes:
                unit = stored.manifest.units[index]
                hasher = blake3() if self._verify else None
                for start, end in _ranges(unit):
                    data = await asyncio.to_thread(os.pread, descriptors[unit.part], end - start, unit.offset + start)
                    _check(stored, unit, data, start, hasher)  # before the last chunk, with which the unit is whole
                    yield Chunk(index, start, data)


async def _from_memory(stored: Stored, resident: Resident, indexes: Sequence[int]) -> AsyncGenerator[Chunk, None]:
    """Units that were verified on their way into memory."""
    for index in indexes:
        unit = stored.manifest.units[index]
        view = resident.segments[unit.part].view
        for start, end in _ranges(unit):
            yield Chunk(index, start, bytes(view[unit.offset + start : unit.offset + end]))


def _check(stored: Stored, unit: Unit, data: bytes, start: int, hasher: blake3 | None) -> None:
    digest, end = stored.manifest.digest, start + len(data)
    if len(data) < min(CHUNK_BYTES, unit.bytes - start):
        raise CorruptUnit(digest, unit.name, "its file ends early")
    if hasher:
        hasher.update(data)
        if end == unit.bytes and hasher.hexdigest() != unit.hash:
            raise CorruptUnit(digest, unit.name, "its bytes do not have its hash")


def _ranges(unit: Unit) -> Iterator[tuple[int, int]]:
    for start in range(0, unit.bytes, CHUNK_BYTES):
        yield start, min(start + CHUNK_BYTES, unit.bytes)


def _read_file(stored: Stored, file: File) -> bytes:
    path = stored.directory / FILES / file.path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error}; import the checkpoint again") from error
    if blake3(data).hexdigest() != file.hash:
        raise Damaged(f"{path} does not have its hash; import the checkpoint again")
    return data


@contextmanager
def _opened(stored: Stored) -> Iterator[list[int]]:
    """The part files, which stay readable to us even if the checkpoint is quarantined meanwhile."""
    descriptors: list[int] = []
    try:
        for path in stored.part_paths:
            descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
