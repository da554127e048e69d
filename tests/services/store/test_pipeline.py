"""Reading into memory: the fast way where there is one, every reader's end awaited, every error heard."""

import asyncio
import errno
import mmap
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from mesh.checkpoint.errors import CorruptUnit
from services.store.disk import PartFile
from services.store.fill import Fill
from services.store.turns import Turns, Urgency
from tests.services.store.inside import Inside, inside
from tests.services.store.made import MB, Made, flip, make
from tests.services.store.serving import descriptors

LAYERS = ((2 * MB,) * 4,)


async def fill(
    store: Inside, made: Made, *, keep_going: bool = False, moved: Callable[[int], None] = lambda _: None
) -> Mapping[int, CorruptUnit | OSError]:
    """Fills all of a checkpoint's memory; what was lost."""
    resident = await store.dram.reserve(made.manifest)
    try:
        return await store.pipeline.fill(
            store.catalog.get(made.digest),
            resident,
            resident.missing(),
            {},
            urgency=Urgency(urgent=True),
            arrived=resident.arrived,
            moved=moved,
            keep_going=keep_going,
        )
    finally:
        store.dram.settle(resident)


def paths(made: Made) -> list[Path]:
    """The part files."""
    return [made.directory / part.file for part in made.manifest.parts]


def out_of_cache(path: Path) -> None:
    """Makes the kernel forget the file's pages."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def takes_direct_reads(path: Path) -> bool:
    """Whether the file system of these tests does."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


async def test_what_is_cached_is_read_from_the_cache_and_the_rest_straight_from_the_disk(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((4 * MB,), (4 * MB,)))
    out_of_cache(paths(made)[1])
    if not takes_direct_reads(paths(made)[1]):
        pytest.skip("this file system has no direct reads")
    async with inside(tmp_path) as store:
        await fill(store, made)
        tally = store.pipeline.tally
        assert (tally.buffered_bytes, tally.direct_bytes) == (4 * MB, 4 * MB)
        assert store.content(made) == made.parts
    with PartFile(paths(made)[1]) as file:
        assert file.goes_direct(0, MB)  # asking and reading have left it out of the cache


def test_a_file_system_without_direct_reads_is_read_through_the_cache() -> None:
    path = Path("/proc/self/cmdline")  # procfs has none
    with PartFile(path) as file:
        assert not file.goes_direct(0, 4096)
        view = memoryview(mmap.mmap(-1, 4096))
        assert file.read_into(view, 0, direct=True) > 0


def test_a_part_that_cannot_be_read_is_not_held_open(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(OSError, match="No such device"):
        PartFile(tmp_path)
    assert descriptors() == before


async def test_each_corrupt_unit_is_named(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((MB, MB + 1), (MB,)))
    async with inside(tmp_path, chunk_bytes=64 << 10) as store:
        for unit in made.manifest.units:
            path = paths(made)[unit.part]
            for offset in (unit.offset, unit.offset + unit.bytes - 1):
                flip(path, offset)
                with pytest.raises(CorruptUnit) as corrupt:
                    await fill(store, made)
                assert corrupt.value.unit == unit.name
                store.dram.evict(made.digest)
                flip(path, offset)
        await fill(store, made)
        assert store.content(made) == made.parts


async def test_with_somebody_to_fetch_it_again_a_corrupt_unit_costs_no_other(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=LAYERS)
    for index in (0, 2):
        flip(paths(made)[0], made.manifest.units[index].offset + MB)
    async with inside(tmp_path, chunk_bytes=64 << 10) as store:
        lost = await fill(store, made, keep_going=True)
        assert sorted(lost) == [0, 2]
        assert store.resident(made).units == {1, 3}


async def test_a_file_that_ends_early_loses_the_units_that_lie_there(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((8192,) * 8,))
    async with inside(tmp_path, chunk_bytes=16384) as store:
        os.truncate(paths(made)[0], 7 * 8192)
        lost = await fill(store, made, keep_going=True)
        assert set(lost) == {6, 7}  # they were to come in one piece
        assert store.resident(made).units == set(range(6))


class SlowDisk:
    """A disk that answers when told to."""

    def __init__(self) -> None:
        self.asked, self.answer = threading.Event(), threading.Event()
        self.reads = 0

    def goes_direct(self, offset: int, length: int) -> bool:
        """Never."""
        return False

    def read_into(self, view: memoryview, offset: int, *, direct: bool) -> int:
        """Waits, then writes."""
        self.reads += 1
        self.asked.set()
        assert self.answer.wait(10)
        view[:] = b"\1" * len(view)
        return len(view)


class Nobody:
    """Hears nothing."""

    def arrived(self, unit: int) -> None:
        """Not this."""

    def moved(self, bytes_done: int) -> None:
        """Nor this."""


class BadSector(SlowDisk):
    """A disk that fails to read one page."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.answer.set()
        self._number = number

    def read_into(self, view: memoryview, offset: int, *, direct: bool) -> int:
        """Fails there."""
        if offset <= 3 * 4096 < offset + len(view):
            raise OSError(self._number, os.strerror(self._number))
        return super().read_into(view, offset, direct=direct)


async def ended_with(store: Inside, made: Made, disk: BadSector) -> tuple[Fill, BaseException | None]:
    """A fill from that disk that goes on where it can, and what ended it."""
    ended = threading.Event()
    resident = await store.dram.reserve(made.manifest)
    work = Fill(resident, range(6), {0: disk}, {}, Nobody(), chunk_bytes=4096, verify=False, keep_going=True)
    with Turns(1) as turns:
        ticket = turns.add(work, Urgency(urgent=True), ended.set)
        assert ended.wait(10)
    return work, ticket.failure


async def test_a_bad_sector_loses_its_unit_and_a_fault_of_the_machines_loses_none(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((4096,) * 6,))
    async with inside(tmp_path) as store:
        work, failure = await ended_with(store, made, BadSector(errno.EIO))
        assert (set(work.lost), failure) == ({3}, None)
        work, failure = await ended_with(store, made, BadSector(errno.EFAULT))
        assert work.lost == {}
        assert isinstance(failure, OSError)


async def test_a_stopped_fill_ends_within_a_chunk(tmp_path: Path) -> None:
    made, disk, ended = make(tmp_path, seed=1, part_units=((MB,),)), SlowDisk(), threading.Event()
    async with inside(tmp_path) as store:
        resident = await store.dram.reserve(made.manifest)
        work = Fill(resident, [0], {0: disk}, {}, Nobody(), chunk_bytes=4096, verify=False, keep_going=False)
        with Turns(1) as turns:
            ticket = turns.add(work, Urgency(urgent=True), ended.set)
            assert disk.asked.wait(10)
            turns.stop(ticket)
            disk.answer.set()
            assert ended.wait(10)
        assert disk.reads == 1


async def test_a_cancelled_fill_returns_when_nobody_writes_to_its_memory_any_more(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((16 * MB,),))
    async with inside(tmp_path, threads=2, chunk_bytes=4096) as store:
        moved = asyncio.Event()
        filling = asyncio.ensure_future(fill(store, made, moved=lambda _: moved.set()))
        await moved.wait()
        filling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await filling
        assert store.dram.used_bytes == 0
        assert store.pipeline.tally.disk_bytes < made.size_bytes
        before = store.pipeline.tally
        await fill(store, made)
        assert store.pipeline.tally.disk_bytes - before.disk_bytes == made.size_bytes
        assert store.content(made) == made.parts


async def test_units_of_any_size_are_read_in_pieces_of_a_chunk(tmp_path: Path) -> None:
    """An expert may be small: a read for each would cost more than the bytes."""
    made, disk = make(tmp_path, seed=1, part_units=((4096,) * 512,)), SlowDisk()
    disk.answer.set()
    ended = threading.Event()
    async with inside(tmp_path) as store:
        resident = await store.dram.reserve(made.manifest)
        arrived: list[int] = []
        nobody = Nobody()
        nobody.arrived = arrived.append  # type: ignore[method-assign]
        work = Fill(resident, range(512), {0: disk}, {}, nobody, chunk_bytes=MB, verify=False, keep_going=False)
        with Turns(1) as turns:
            turns.add(work, Urgency(urgent=True), ended.set)
            assert ended.wait(10)
        assert disk.reads == 2
        assert arrived == list(range(512))


async def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with inside(tmp_path) as store:
        await fill(store, made)
        before = descriptors()
        store.dram.evict(made.digest)
        await fill(store, made)
        assert descriptors() == before
