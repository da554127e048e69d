"""Loads: joined, cancelled, and never at the cost of memory; the store's inside without gRPC."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mesh.clock import HandClock
from mesh.facts import Tier
from services.store.catalog import Catalog
from services.store.loads import Loads, Opening
from services.store.pins import Pins
from services.store.pipeline import Pipeline
from services.store.tiers import DramPool
from tests.services.store.made import MB, Made, make

ONE_MB = ((MB,),)


@dataclass(frozen=True, slots=True)
class Inside:
    """A store without its wire."""

    catalog: Catalog
    dram: DramPool
    pins: Pins
    loads: Loads
    clock: HandClock

    async def use(self, made: Made) -> Tier:
        """Opens and closes, a second after whatever was before."""
        async with self.loads.open(self.catalog.get(made.digest)) as opening:
            self.clock.turn(1)
            await opening.resident()
            return opening.tier


@asynccontextmanager
async def inside(
    root: Path, *, dram_bytes: int = 64 * MB, threads: int = 3, chunk_bytes: int = MB
) -> AsyncIterator[Inside]:
    """A store's inside on `root`."""
    pins, clock = Pins(), HandClock()
    catalog = Catalog(root, lambda: None)
    dram = DramPool(dram_bytes, pins, clock, lambda: None)
    with Pipeline(threads, chunk_bytes, verify=True) as pipeline:
        async with catalog, dram, Loads(catalog, dram, pins, pipeline) as loads:
            yield Inside(catalog, dram, pins, loads, clock)


async def first_progress(opening: Opening) -> None:
    """Returns when some bytes have come."""
    async for _ in opening.progress():
        return


def content(store: Inside, made: Made) -> bytes:
    """What the first part's memory holds."""
    resident = store.dram.get(made.digest)
    assert resident is not None
    return bytes(resident.segments[0].view[: made.manifest.parts[0].bytes])


async def test_a_load_that_nobody_waits_for_stops_and_gives_its_memory_back(tmp_path: Path) -> None:
    left, other = (make(tmp_path, seed=seed, part_units=((32 * MB,),)) for seed in range(2))
    async with inside(tmp_path, dram_bytes=32 * MB, threads=1, chunk_bytes=4096) as store:
        async with store.loads.open(store.catalog.get(left.digest)) as opening:
            await first_progress(opening)
        assert not store.pins.held(left.digest)
        assert await store.use(other) is Tier.DISK  # it has all the memory there is, at once
        assert content(store, other) == other.parts[0]
        assert await store.use(left) is Tier.DISK  # it was not finished
        assert content(store, left) == left.parts[0]


async def test_a_load_goes_on_for_those_who_still_wait(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((16 * MB,),))
    async with inside(tmp_path, threads=1, chunk_bytes=4096) as store:
        stored = store.catalog.get(made.digest)
        async with store.loads.open(stored) as patient:
            async with store.loads.open(stored) as hasty:
                await first_progress(hasty)
            joined = await patient.resident()
        assert bytes(joined.segments[0].view) == made.parts[0]


async def test_progress_only_grows_and_there_is_not_too_much_of_it(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((32 * MB,),))
    async with inside(tmp_path, threads=2, chunk_bytes=4096) as store:
        began_s = asyncio.get_running_loop().time()
        async with store.loads.open(store.catalog.get(made.digest)) as opening:
            steps = [step async for step in opening.progress()]
        took_s = asyncio.get_running_loop().time() - began_s
    assert steps == sorted(steps)
    assert 1 <= len(steps) <= 2 + took_s * 20
    assert 0 < steps[0] < made.size_bytes


async def test_the_end_of_a_use_counts_as_a_use(tmp_path: Path) -> None:
    a, b, c = (make(tmp_path, seed=seed, part_units=ONE_MB) for seed in range(3))
    async with inside(tmp_path, dram_bytes=2 * MB) as store:
        async with store.loads.open(store.catalog.get(a.digest)) as opening:
            await opening.resident()
            await store.use(b)
            store.clock.turn(1)
        await store.use(c)
        assert (store.dram.holds(a.digest), store.dram.holds(b.digest)) == (True, False)


async def test_the_memory_of_an_evicted_checkpoint_is_filled_again(tmp_path: Path) -> None:
    small, large = make(tmp_path, seed=1, part_units=ONE_MB), make(tmp_path, seed=2, part_units=((2 * MB, 5),))
    async with inside(tmp_path, dram_bytes=large.size_bytes) as store:
        async with store.loads.open(store.catalog.get(small.digest)) as opening:
            before = (await opening.resident()).segments[0]
        await store.use(large)
        resident = store.dram.get(large.digest)
        assert resident is not None
        assert resident.segments[0] is before  # grown, not new: fresh pages cost more than the disk
        assert content(store, large) == large.parts[0]


async def test_memory_stays_within_its_bound_through_any_sequence(tmp_path: Path) -> None:
    sizes = (3, 1, 2, 4, 1, 3, 2)
    made = [make(tmp_path, seed=i, part_units=((size * MB,), (MB,))) for i, size in enumerate(sizes)]
    async with inside(tmp_path, dram_bytes=6 * MB) as store:
        for one in made * 2:
            await store.use(one)
            assert content(store, one) == one.parts[0]
            assert shared_memory_bytes() <= 6 * MB


def shared_memory_bytes() -> int:
    """Bytes of memfds of ours that this process maps."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "memfd:whimbrel-part" in line:
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            total += end - start
    return total


async def test_padding_and_odd_sizes_come_out_right(tmp_path: Path) -> None:
    sizes = (1, 4095, 4096, 4097, 8191, 65536, 65537, 1)
    made = make(tmp_path, seed=7, part_units=(sizes, sizes[::-1]))
    for chunk_bytes in (4096, 16384, MB):
        async with inside(tmp_path, chunk_bytes=chunk_bytes) as store:
            await store.use(made)
            resident = store.dram.get(made.digest)
            assert resident is not None
            assert tuple(bytes(segment.view) for segment in resident.segments) == made.parts
