"""The pool: never above its capacity, never at the cost of what is used, and it keeps what it can."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.checkpoint.layout import Manifest
from mesh.clock import HandClock
from mesh.errors import NoRoom, Unsuitable
from services.store.activity import Activity
from services.store.pins import Pins
from services.store.resident import Resident
from services.store.segments import Segment
from services.store.tiers import DramPool
from tests.services.store.inside import SEGMENT, bytes_in, inside
from tests.services.store.made import MB, make, manifest_of_sizes
from tests.services.store.serving import descriptors
from tests.services.store.test_segments import can_collapse

PAGE = 4096


@asynccontextmanager
async def pool(capacity_bytes: int) -> AsyncIterator[DramPool]:
    """One with small segments."""
    async with DramPool(capacity_bytes, SEGMENT, Pins(), HandClock(), lambda: None) as pool:
        yield pool


async def filled(pool: DramPool, manifest: Manifest) -> Resident:
    """Has all of it in memory."""
    resident = await pool.reserve(manifest)
    for unit in range(len(manifest.units)):
        resident.arrived(unit)
    pool.settle(resident)
    return resident


@contextmanager
def held(segment: Segment) -> Iterator[None]:
    """Somebody has been handed it."""
    descriptor = segment.read_only()
    try:
        yield
    finally:
        os.close(descriptor)


def shared_memory_bytes() -> int:
    """Bytes of the memfds that this process has open, whoever else does."""
    found = [path.stat() for path in Path("/proc/self/fd").iterdir() if path.is_symlink() and is_ours(path)]
    return sum({one.st_ino: one.st_size for one in found}.values())


def is_ours(path: Path) -> bool:
    """Whether a descriptor is a segment's."""
    try:
        return "memfd:whimbrel-part" in str(path.readlink())
    except FileNotFoundError:  # the one that lists them
        return False


async def test_a_part_is_a_row_of_equal_segments_the_last_one_shorter() -> None:
    async with pool(64 * MB) as dram:
        resident = await dram.reserve(manifest_of_sizes(((5 * MB, 4096), (2 * MB,))))
        assert [segment.bytes for segment in resident.segments] == [2 * MB, 2 * MB, MB + 4096, 2 * MB]
        assert dram.used_bytes == 7 * MB + 4096


async def test_what_is_shed_is_the_tail_and_every_unit_that_it_cuts() -> None:
    async with pool(8 * MB) as dram:
        old = await filled(dram, manifest_of_sizes(((3 * MB, 2 * MB, 3 * MB),)))
        await filled(dram, manifest_of_sizes(((MB,),)))
        assert old.units == {0, 1}
        assert dram.bytes_of(old.digest) == 5 * MB
        assert [segment is None for segment in old.parts[0].segments] == [False, False, False, True]
        await filled(dram, manifest_of_sizes(((2 * MB, 5),)))  # what was freed is not enough for this one
        assert old.units == {0}
        assert old.held_bytes == 4 * MB


async def test_a_reservation_that_was_not_filled_gives_back_what_holds_no_unit() -> None:
    async with pool(8 * MB) as dram:
        resident = await dram.reserve(manifest_of_sizes(((3 * MB, 5 * MB),)))
        resident.arrived(0)
        dram.settle(resident)
        assert dram.used_bytes == 4 * MB  # the second segment has the end of unit 0
        assert dram.get(resident.digest) is resident
        assert not resident.whole


async def test_segments_are_filled_again_rather_than_asked_of_the_kernel() -> None:
    async with pool(8 * MB) as dram:
        old = (await filled(dram, manifest_of_sizes(((6 * MB,),)))).segments
        new = (await filled(dram, manifest_of_sizes(((4 * MB, 4 * MB),)))).segments
        assert set(old) < set(new)


async def test_a_spare_that_somebody_still_maps_is_left_alone() -> None:
    async with pool(8 * MB) as dram:
        resident = await dram.reserve(manifest_of_sizes(((4 * MB,),)))
        mapped = resident.segments[0]
        with held(mapped):  # as a worker has it that was handed the memory before it was filled
            dram.settle(resident)
            new = await filled(dram, manifest_of_sizes(((4 * MB, 5),)))
        assert mapped not in new.segments


async def test_evicting_says_what_came_free_and_refuses_what_is_used() -> None:
    async with pool(8 * MB) as dram:
        resident = await filled(dram, manifest_of_sizes(((3 * MB,),)))
        with held(resident.segments[1]), pytest.raises(Unsuitable) as refused:
            dram.evict(resident.digest)
        assert refused.value.reason == "CHECKPOINT_IN_USE"
        assert dram.evict(resident.digest) == 3 * MB
        assert dram.evict(resident.digest) == 0
        assert dram.used_bytes == 0


async def test_a_pool_touches_all_its_memory_when_asked_and_loads_use_that(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((4 * MB,),))
    async with inside(tmp_path, dram_bytes=9 * MB) as store:
        await store.dram.prefault()
        assert shared_memory_bytes() == 8 * MB
        assert store.dram.used_bytes == 0
        await store.use(made)
        assert shared_memory_bytes() == 8 * MB
        assert store.content(made) == made.parts


async def test_touching_stops_when_it_is_told_to_and_leaves_room_for_a_load_meanwhile(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((4 * MB,),))
    async with inside(tmp_path, dram_bytes=64 * MB) as store:
        touching = asyncio.create_task(store.dram.prefault())
        await asyncio.sleep(0)
        await store.use(made)
        assert store.content(made) == made.parts
        touching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await touching
        assert shared_memory_bytes() <= 64 * MB


async def test_no_descriptor_and_no_memory_outlives_the_pool(tmp_path: Path) -> None:
    made = [make(tmp_path, seed=seed, part_units=((5 * MB,), (MB,))) for seed in range(3)]
    for _ in range(2):
        async with inside(tmp_path, dram_bytes=9 * MB) as store:
            for one in made:
                await store.use(one)
        before = descriptors()
    assert descriptors() == before
    assert shared_memory_bytes() == 0


async def test_memory_stays_within_its_bound_through_any_sequence(tmp_path: Path) -> None:
    sizes = (3, 1, 2, 4, 1, 3, 2)
    made = [make(tmp_path, seed=i, part_units=((size * MB,), (MB,))) for i, size in enumerate(sizes)]
    async with inside(tmp_path, dram_bytes=6 * MB) as store:
        for one in made * 2:
            await store.use(one)
            assert store.content(one) == one.parts
            assert shared_memory_bytes() <= 6 * MB


PAGES = st.integers(1, 1200)  # 1200 pages are more than two segments
CHECKPOINT = st.lists(st.lists(PAGES, min_size=1, max_size=4), min_size=1, max_size=2)
OPERATION = st.one_of(
    st.tuples(st.just("load"), st.integers(0, 4)),
    st.tuples(st.just("half"), st.integers(0, 4)),
    st.tuples(st.just("pin"), st.integers(0, 4)),
    st.tuples(st.just("unpin"), st.integers(0, 4)),
    st.tuples(st.just("map"), st.integers(0, 4)),
    st.tuples(st.just("evict"), st.integers(0, 4)),
)


@dataclass
class Model:
    """A pool under test, and what must be true of it."""

    pool: DramPool
    pins: Pins
    manifests: list[Manifest]
    pinned: dict[int, ExitStack] = field(default_factory=dict)
    mapped: dict[int, ExitStack] = field(default_factory=dict)
    units: dict[int, set[int]] = field(default_factory=dict)  # of those in use: they must stay

    async def load(self, number: int, share: float = 1.0) -> None:
        """Fills it, or as much of it."""
        manifest = self.manifests[number]
        with self.pins.hold(manifest.digest), contextlib.suppress(NoRoom):
            resident = await self.pool.reserve(manifest)
            assert not any(resident.gaps())
            for unit in resident.missing()[: max(1, round(len(manifest.units) * share))]:
                self._write(resident, unit)
                resident.arrived(unit)
            self.pool.settle(resident)

    def use(self, number: int, uses: dict[int, ExitStack]) -> None:
        """Pins or maps it."""
        resident = self.pool.get(self.manifests[number].digest)
        if resident is None or number in uses:
            return
        uses[number] = ExitStack()
        if uses is self.pinned:
            uses[number].enter_context(self.pins.hold(resident.digest))
        elif resident.segments:
            uses[number].enter_context(held(resident.segments[0]))
        self.units[number] = set(resident.units)

    def unuse(self, number: int) -> None:
        """Neither any more."""
        for uses in (self.pinned, self.mapped):
            if number in uses:
                uses.pop(number).close()
        self.units.pop(number, None)

    def check(self) -> None:
        """The bound, what is used, and that every unit said to be here is."""
        assert shared_memory_bytes() <= self.pool.capacity_bytes
        assert self.pool.used_bytes <= self.pool.capacity_bytes
        for number, units in self.units.items():
            resident = self.pool.get(self.manifests[number].digest)
            assert resident is not None
            assert units <= resident.units
        for number, manifest in enumerate(self.manifests):
            resident = self.pool.get(manifest.digest)
            for unit in resident.units if resident else ():
                assert self._read(resident, unit) == (number, unit)

    def _write(self, resident: Resident, unit: int) -> None:
        start, end = resident.extents[unit]
        memory = resident.parts[resident.manifest.units[unit].part]
        for page in (start, end - PAGE):
            (view,) = memory.views(page, 2)
            with view:
                view[:] = bytes([self.manifests.index(resident.manifest), unit])

    def _read(self, resident: Resident, unit: int) -> tuple[int, int]:
        start, end = resident.extents[unit]
        memory = resident.parts[resident.manifest.units[unit].part]
        first, last = bytes_in(memory, start, 2), bytes_in(memory, end - PAGE, 2)
        assert first == last
        return first[0], first[1]


@settings(max_examples=60, deadline=None)
@given(st.lists(CHECKPOINT, min_size=5, max_size=5), st.integers(1, 4000), st.lists(OPERATION, max_size=25))
def test_whatever_happens_the_bound_holds_and_what_is_used_stays(
    sizes: list[list[list[int]]], capacity_pages: int, operations: list[tuple[str, int]]
) -> None:
    asyncio.run(through(sizes, capacity_pages, operations))


async def through(sizes: list[list[list[int]]], capacity_pages: int, operations: list[tuple[str, int]]) -> None:
    """One run."""
    manifests = [
        manifest_of_sizes(tuple(tuple(pages * PAGE for pages in part) for part in parts), seed=seed)
        for seed, parts in enumerate(sizes)
    ]
    pins, clock = Pins(), HandClock()
    async with DramPool(capacity_pages * PAGE, SEGMENT, pins, clock, lambda: None) as dram:
        model = Model(dram, pins, manifests)
        try:
            for what, number in operations:
                clock.turn(1)
                match what:
                    case "load":
                        await model.load(number)
                    case "half":
                        await model.load(number, 0.5)
                    case "pin":
                        model.use(number, model.pinned)
                    case "map":
                        model.use(number, model.mapped)
                    case "unpin":
                        model.unuse(number)
                    case "evict":
                        with contextlib.suppress(Unsuitable):
                            dram.evict(manifests[number].digest)
                model.check()
        finally:
            for number in range(len(manifests)):
                model.unuse(number)


@can_collapse
async def test_what_a_load_has_filled_gets_large_pages_once_nobody_waits_for_bytes(tmp_path: Path) -> None:
    made, activity = make(tmp_path, seed=1, part_units=((3 * MB, 2 * MB),)), Activity()
    async with inside(tmp_path) as store, asyncio.TaskGroup() as group:
        enlarging = group.create_task(store.dram.enlarge(activity))
        with activity.busy():
            await store.use(made)
            segments = store.resident(made).segments
            assert [segment.ready_bytes for segment in segments] == [0] * 3
        async with asyncio.timeout(30):
            while not all(segment.ready for segment in segments):  # noqa: ASYNC110  the kernel tells nobody
                await asyncio.sleep(0.01)
        assert [segment.huge_bytes() for segment in segments] == [2 * MB, 2 * MB, 0]
        assert store.content(made) == made.parts
        enlarging.cancel()
