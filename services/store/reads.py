"""Units and small files as bytes, for callers that cannot map them. Nothing whole leaves before its hash is right."""

import asyncio
import mmap
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import groupby

from blake3 import blake3

from mesh.checkpoint.errors import CorruptUnit, Damaged
from mesh.checkpoint.layout import File
from mesh.checkpoint.verify import FILES
from services.store.catalog import Catalog, Stored
from services.store.corrupt import OnCorrupt, unit_named, unreadable
from services.store.disk import PartFile
from services.store.faults import as_mesh_error
from services.store.fetching import fetch
from services.store.memory import Fetcher, release
from services.store.nearest import nearest
from services.store.pins import Pins
from services.store.pipeline import Pipeline, Working
from services.store.resident import Resident
from services.store.ring import Ring, SlotFilled
from services.store.tiers import DramPool
from services.store.turns import Urgency

CHUNK_BYTES = 1 << 20  # the fastest message size over gRPC
SLOTS = 4  # chunks of one call that are read ahead of the network


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of a unit; `offset` is within it. `data` is good until the next chunk is asked for."""

    unit: int
    offset: int
    data: memoryview


class Reading:
    """Units on their way through somebody's slots."""

    def __init__(
        self, stored: Stored, ring: Ring, working: Working, fetching: asyncio.Future[None], on_corrupt: OnCorrupt
    ) -> None:
        self._stored, self._ring, self._working = stored, ring, working
        self._fetching, self._on_corrupt = fetching, on_corrupt

    async def filled(self) -> AsyncGenerator[SlotFilled, None]:
        """Slots as they are filled, in the order of the units asked for. Raises DataLoss, Unreachable."""
        async with aclosing(self._ring.filled(self._working.ended)) as slots:
            async for slot in slots:
                yield slot
        if self._fetching.done():
            self._fetching.result()
        try:
            await self._working.wait()
        except CorruptUnit as error:
            await self._on_corrupt(self._stored, unit_named(self._stored, error.unit), str(error))
            raise as_mesh_error(error) from error
        except OSError as error:
            raise unreadable(self._stored, error) from error

    def free(self, slot: int) -> None:
        """The slot may be filled again. Raises InvalidRequest unless it had been filled."""
        self._ring.free(slot)
        self._working.wake()


class Reads:
    """Reads what the catalogue has, from the nearest tier. What proves damaged goes out of service: DataLoss."""

    def __init__(
        self,
        catalog: Catalog,
        dram: DramPool,
        pins: Pins,
        pipeline: Pipeline,
        *,
        on_corrupt: OnCorrupt,
        fetcher: Fetcher | None = None,
        verify_sent: bool = False,
    ) -> None:
        """`verify_sent`: hash what `units` reads from the disk, even if the pipeline trusts it."""
        self._catalog, self._dram, self._pins, self._pipeline = catalog, dram, pins, pipeline
        self._on_corrupt, self._fetcher, self._verify_sent = on_corrupt, fetcher, verify_sent

    async def units(self, stored: Stored, indexes: Sequence[int]) -> AsyncGenerator[Chunk, None]:
        """Whole units in the order given, the checkpoint pinned meanwhile. `indexes` must be in range."""
        digest = stored.manifest.digest
        with self._pins.hold(digest):
            resident = self._dram.get(digest)
            here = resident.units if resident else set()
            for in_memory, group in groupby(indexes, key=here.__contains__):
                units = tuple(group)
                source = _from_memory(resident, units) if resident and in_memory else self._through_slots(stored, units)
                async with aclosing(source) as chunks:
                    async for chunk in chunks:
                        yield chunk

    @asynccontextmanager
    async def through(
        self, stored: Stored, indexes: Sequence[int], slots: Sequence[memoryview], *, verify: bool = False
    ) -> AsyncIterator[Reading]:
        """The same through the caller's slots, of equal size, whole pages each. What is absent is fetched to the disk.

        Leaving stops it; on return nobody writes to the slots any more.
        """
        with ExitStack() as held:
            held.enter_context(self._pins.hold(stored.manifest.digest))
            found = nearest(indexes, stored, self._dram)
            for lender in found.lenders:
                held.enter_context(self._pins.hold(lender))
            awaited = set(found.absent)
            parts = {stored.manifest.units[unit].part for unit in (*found.on_disk, *found.absent)}
            ring = Ring(
                stored.manifest,
                indexes,
                slots,
                _parts(stored, parts, held),
                found.places,
                here=lambda unit: unit not in awaited,
                verify=verify or self._pipeline.verify,
            )
            urgency = Urgency(urgent=True)
            async with self._pipeline.working(ring, urgency) as working:

                def arrived(unit: int) -> None:
                    awaited.discard(unit)
                    working.wake()

                fetching = asyncio.ensure_future(
                    fetch(self._fetcher, stored, found.absent, None, arrived=arrived, urgency=urgency)
                )
                fetching.add_done_callback(lambda task: None if _succeeded(task) else working.stop())
                try:
                    yield Reading(stored, ring, working, fetching, self._on_corrupt)
                finally:
                    fetching.cancel()
                    await asyncio.gather(fetching, return_exceptions=True)
                    self._pipeline.tally += ring.tally

    async def file(self, stored: Stored, file: File) -> bytes:
        """One of the checkpoint's small files."""
        with self._pins.hold(stored.manifest.digest):
            try:
                return await asyncio.to_thread(_read_file, stored, file)
            except Damaged as error:
                await self._catalog.quarantine(stored.manifest.digest, str(error))
                raise as_mesh_error(error) from error

    async def _through_slots(self, stored: Stored, indexes: Sequence[int]) -> AsyncGenerator[Chunk, None]:
        with _buffers() as slots:
            async with (
                self.through(stored, indexes, slots, verify=self._verify_sent) as reading,
                aclosing(reading.filled()) as filled,
            ):
                async for slot in filled:
                    with slots[slot.slot][: slot.bytes] as data:
                        yield Chunk(slot.unit, slot.offset, data)
                    reading.free(slot.slot)


async def _from_memory(resident: Resident, indexes: Sequence[int]) -> AsyncGenerator[Chunk, None]:
    """Units that were verified on their way into memory."""
    for index in indexes:
        place, count = resident.place(index), resident.manifest.units[index].bytes
        offset = 0
        while offset < count:
            views = place.part.views(place.offset + offset, min(CHUNK_BYTES, count - offset))
            for view in views:
                yield Chunk(index, offset, view)
                offset += len(view)
            release(views)


def _parts(stored: Stored, parts: Iterable[int], held: ExitStack) -> dict[int, PartFile]:
    """The part files, which stay readable to us even if the checkpoint is quarantined meanwhile."""
    try:
        return {part: held.enter_context(PartFile(stored.part_paths[part])) for part in parts}
    except OSError as error:
        raise unreadable(stored, error) from error


@contextmanager
def _buffers() -> Iterator[list[memoryview]]:
    """Slots of our own."""
    with mmap.mmap(-1, SLOTS * CHUNK_BYTES) as memory, memoryview(memory) as view:
        slots = [view[start : start + CHUNK_BYTES] for start in range(0, len(view), CHUNK_BYTES)]
        try:
            yield slots
        finally:
            release(slots)


def _read_file(stored: Stored, file: File) -> bytes:
    path = stored.directory / FILES / file.path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error}; import the checkpoint again") from error
    if blake3(data).hexdigest() != file.hash:
        raise Damaged(f"{path} does not have its hash; import the checkpoint again")
    return data


def _succeeded(task: asyncio.Future[None]) -> bool:
    return not task.cancelled() and task.exception() is None
