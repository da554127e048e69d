"""A store's inside: everything but its wire. And one that fetches, as a peer with all the bytes would have it do."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

from mesh.clock import HandClock
from mesh.errors import Unreachable
from mesh.facts import Tier
from services.store.catalog import Catalog, Stored
from services.store.corrupt import OnCorrupt
from services.store.loads import Loads, Opening
from services.store.memory import Fetcher, PartMemory, release
from services.store.pins import Pins
from services.store.pipeline import Pipeline
from services.store.quarantine import Quarantine
from services.store.reads import Reads
from services.store.resident import Resident
from services.store.tiers import DramPool
from tests.services.store.made import MB, Made

SEGMENT = 2 * MB


@dataclass(frozen=True, slots=True)
class Inside:
    """A store without its wire."""

    catalog: Catalog
    dram: DramPool
    pins: Pins
    pipeline: Pipeline
    loads: Loads
    reads: Reads
    clock: HandClock

    async def use(self, made: Made) -> Tier:
        """Opens and closes, a second after whatever was before."""
        async with self.loads.open(self.catalog.get(made.digest)) as opening:
            self.clock.turn(1)
            await opening.complete()
            return opening.tier

    def resident(self, made: Made) -> Resident:
        """What is in memory of it, which must be something."""
        resident = self.dram.get(made.digest)
        assert resident is not None
        return resident

    def content(self, made: Made) -> tuple[bytes, ...]:
        """What its parts' memory holds."""
        parts = self.resident(made).parts
        return tuple(bytes_in(part, 0, part.bytes) for part in parts)


@asynccontextmanager
async def inside(
    root: Path,
    *,
    dram_bytes: int = 64 * MB,
    threads: int = 3,
    chunk_bytes: int = MB,
    verify: bool = True,
    fetcher: Fetcher | None = None,
    on_corrupt: OnCorrupt | None = None,
) -> AsyncIterator[Inside]:
    """A store's inside on `root`, with the smallest segments."""
    pins, clock = Pins(), HandClock()
    catalog = Catalog(root, lambda: None)
    dram = DramPool(dram_bytes, SEGMENT, pins, clock, lambda: None)
    on_corrupt = on_corrupt or Quarantine(catalog).on_corrupt
    with Pipeline(threads, chunk_bytes, verify=verify) as pipeline:
        async with catalog, dram, Loads(dram, pins, pipeline, on_corrupt=on_corrupt, fetcher=fetcher) as loads:
            reads = Reads(catalog, dram, pins, pipeline, on_corrupt=on_corrupt, fetcher=fetcher)
            yield Inside(catalog, dram, pins, pipeline, loads, reads, clock)


async def until_moved(opening: Opening) -> None:
    """Returns when some bytes have come."""
    async for step in opening.steps():
        if step.bytes_done:
            return


def bytes_in(part: PartMemory, offset: int, length: int) -> bytes:
    """What lies there."""
    views = part.views(offset, length)
    found = b"".join(views)
    release(views)
    return found


def partly(stored: Stored, here: set[int]) -> Stored:
    """The checkpoint, of which only the units in `here` are on disk: as many as are in it when somebody asks."""

    class Partly(Stored):
        @property
        def units_on_disk(self) -> frozenset[int]:
            return frozenset(here)

    return Partly(*(getattr(stored, field.name) for field in fields(stored)))


@dataclass(slots=True)
class Peer:
    """A fetcher that has everything `made` has. It waits for `go_on` before each unit."""

    made: Made
    asked: list[tuple[tuple[int, ...], bool]] = field(default_factory=list)
    calls: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False

    async def fetch(
        self,
        stored: Stored,
        units: Sequence[int],
        views: Sequence[PartMemory] | None,
        arrived: Callable[[int], None],
        *,
        urgent: bool,
    ) -> None:
        """To disk and to memory."""
        self.asked.append((tuple(units), urgent))
        self.calls.release()
        for index in units:
            await self.go_on.wait()
            if self.lost:
                raise Unreachable("nobody has it")
            unit = stored.manifest.units[index]
            data = self.made.unit(index)
            with stored.part_paths[unit.part].open("r+b") as file:
                file.seek(unit.offset)
                file.write(data)
            if views:
                for view in views[unit.part].views(unit.offset, unit.bytes):
                    with view:
                        view[:], data = data[: len(view)], data[len(view) :]
            arrived(index)
