"""Reading into memory: the fast way where there is one, every thread's end awaited, every error heard."""

import asyncio
import mmap
import os
import threading
from pathlib import Path

import pytest

from mesh.checkpoint.errors import CorruptUnit
from services.store.disk import PartFile
from services.store.fill import Fill
from services.store.pipeline import Pipeline
from tests.services.store.made import MB, Made, flip, make
from tests.services.store.serving import descriptors


def paths(made: Made) -> list[Path]:
    """The part files."""
    return [made.directory / part.file for part in made.manifest.parts]


def out_of_cache(path: Path) -> None:
    """Makes the kernel forget the file's pages."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def aligned(size: int) -> memoryview:
    """Page-aligned memory."""
    return memoryview(mmap.mmap(-1, size))


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
    views = [aligned(4 * MB) for _ in range(2)]
    with Pipeline(2, MB, verify=True) as pipeline:
        tally = await pipeline.fill(made.manifest, paths(made), views, lambda _: None)
    assert (tally.buffered_bytes, tally.direct_bytes) == (4 * MB, 4 * MB)
    assert tuple(map(bytes, views)) == made.parts
    with PartFile(paths(made)[1]) as file:
        assert file.goes_direct(0, MB)  # asking and reading have left it out of the cache


def test_a_file_system_without_direct_reads_is_read_through_the_cache(tmp_path: Path) -> None:
    path = Path("/proc/self/cmdline")  # procfs has none
    with PartFile(path) as file:
        assert not file.goes_direct(0, 4096)
        view = aligned(4096)
        assert file.read_into(view, 0, direct=True) > 0


async def test_each_corrupt_unit_is_named(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((MB, MB + 1), (MB,)))
    with Pipeline(3, 64 << 10, verify=True) as pipeline:
        for unit in made.manifest.units:
            path = paths(made)[unit.part]
            for offset in (unit.offset, unit.offset + unit.bytes - 1):
                flip(path, offset)
                with pytest.raises(CorruptUnit) as corrupt:
                    await pipeline.fill(made.manifest, paths(made), [aligned(3 * MB), aligned(MB)], lambda _: None)
                assert corrupt.value.unit == unit.name
                flip(path, offset)
        await pipeline.fill(made.manifest, paths(made), [aligned(3 * MB), aligned(MB)], lambda _: None)


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


def test_a_stopped_fill_ends_within_a_chunk(tmp_path: Path) -> None:
    made, disk = make(tmp_path, seed=1, part_units=((MB,),)), SlowDisk()
    fill = Fill(made.manifest, [disk], [aligned(MB)], chunk_bytes=4096, verify=False, tell=lambda _: None)
    thread = threading.Thread(target=fill.run)
    thread.start()
    assert disk.asked.wait(10)
    fill.stop()
    disk.answer.set()
    thread.join(10)
    assert not thread.is_alive()
    assert disk.reads == 1


async def test_a_load_behind_another_is_cancelled_without_waiting_for_its_turn(tmp_path: Path) -> None:
    slow, other = (make(tmp_path, seed=seed, part_units=((MB,),)) for seed in range(2))
    fifo = tmp_path / "part-000.bin"
    os.mkfifo(fifo)  # opening it blocks until somebody writes
    with Pipeline(1, MB, verify=True) as pipeline:
        blocked = asyncio.get_running_loop().run_in_executor(pipeline._readers, fifo.read_bytes)
        waiting = asyncio.ensure_future(pipeline.fill(other.manifest, paths(other), [aligned(MB)], lambda _: None))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, 5)
        assert not blocked.done()
        fifo.write_bytes(b"done")
        assert await blocked == b"done"
        await pipeline.fill(slow.manifest, paths(slow), [aligned(MB)], lambda _: None)


async def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    with Pipeline(2, MB, verify=True) as pipeline:
        await pipeline.fill(made.manifest, paths(made), [aligned(made.size_bytes)], lambda _: None)
        before = descriptors()
        await pipeline.fill(made.manifest, paths(made), [aligned(made.size_bytes)], lambda _: None)
        assert descriptors() == before
