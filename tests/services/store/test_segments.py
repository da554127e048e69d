"""Segments: nobody but the store can change them, and the kernel says who has them."""

import fcntl
import mmap
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.mapping import HUGE_BYTES, Mapping
from services.store.segments import STEP_BYTES, Segment, huge_pages
from tests.services.store.serving import descriptors

SIZE = 1 << 20
SHMEM_HUGE = any(
    f"[{mode}]" in Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled").read_text()
    for mode in ("always", "within_size", "advise", "force")
)
RELEASE = tuple(int(number) for number in os.uname().release.split(".")[:2])
can_collapse = pytest.mark.skipif(RELEASE < (6, 1), reason="this kernel cannot make 2 MiB pages of small ones")


@pytest.fixture
def segment() -> Iterator[Segment]:
    """A megabyte of fives."""
    segment = Segment(SIZE, 3 * SIZE)
    segment.view[:] = b"\5" * SIZE
    yield segment
    segment.close()


@pytest.fixture
def descriptor(segment: Segment) -> Iterator[int]:
    """What a worker is given."""
    descriptor = segment.read_only()
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("reopened", [False, True])
def test_a_holder_can_neither_write_nor_map_for_writing(descriptor: int, reopened: bool) -> None:
    own = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR) if reopened else os.dup(descriptor)
    try:
        with pytest.raises(OSError, match=r"Operation not permitted|Bad file descriptor"):
            os.pwrite(own, b"x", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(own, SIZE, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        with pytest.raises(OSError, match=r"Operation not permitted|Invalid argument"):
            os.ftruncate(own, 4096)
    finally:
        os.close(own)


def test_a_read_only_mapping_cannot_be_made_writable(descriptor: int) -> None:
    with mmap.mmap(descriptor, SIZE, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as mapping:
        assert mapping[:3] == b"\5\5\5"
        with pytest.raises(TypeError):
            mapping[0] = 1


def test_seals_cannot_be_taken_off_but_the_store_still_writes(segment: Segment, descriptor: int) -> None:
    seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    assert seals & fcntl.F_SEAL_SHRINK
    assert seals & 0x10  # F_SEAL_FUTURE_WRITE
    segment.view[0] = 9
    assert os.pread(descriptor, 2, 0) == b"\t\5"


def test_a_segment_is_shared_while_a_descriptor_or_a_mapping_or_one_under_way_is_alive(segment: Segment) -> None:
    assert not segment.shared()
    descriptor = segment.read_only()
    assert segment.shared()
    mapping = mmap.mmap(descriptor, SIZE, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    os.close(descriptor)
    assert segment.shared()
    mapping.close()
    assert not segment.shared()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        descriptor = segment.read_only()
        socket.send_fds(ours, [b"x"], [descriptor])
        os.close(descriptor)
        assert segment.shared()
    assert not segment.shared()  # the socket was closed with the message unread


def test_a_private_mapping_counts_too(segment: Segment) -> None:
    descriptor = segment.read_only()
    mapping = mmap.mmap(descriptor, SIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(descriptor)
    assert segment.shared()
    mapping[0] = 1
    assert segment.view[0] == 5  # its own copy of the page
    mapping.close()
    assert not segment.shared()


def test_growing_keeps_what_is_there(segment: Segment) -> None:
    segment.grow(3 * SIZE)
    assert segment.bytes == len(segment.view) == 3 * SIZE
    assert segment.view[SIZE - 1] == 5
    segment.view[3 * SIZE - 1] = 7
    descriptor = segment.read_only()
    assert os.pread(descriptor, 1, 3 * SIZE - 1) == b"\7"
    os.close(descriptor)


def test_it_grows_within_its_room_only(segment: Segment) -> None:
    with pytest.raises(ValueError, match="room"):
        segment.grow(3 * SIZE + 1)
    assert segment.bytes == SIZE


@can_collapse
def test_touched_memory_is_in_pages_of_2_mib_but_for_what_is_left_over() -> None:
    segment = Segment(HUGE_BYTES * 5 // 2)
    segment.touch()
    assert segment.huge_bytes() == 2 * HUGE_BYTES
    assert stored_bytes(segment) == segment.bytes
    assert segment.view[:] == bytes(segment.bytes)
    segment.close()


@can_collapse
def test_the_store_can_tell_which_pages_it_gets() -> None:
    before = descriptors(), mapped_bytes()
    assert huge_pages()
    assert (descriptors(), mapped_bytes()) == before


@can_collapse
def test_pages_are_enlarged_a_step_at_a_time_and_keep_what_lies_there_and_whoever_maps_them() -> None:
    segment = Segment(STEP_BYTES + HUGE_BYTES)
    content = os.urandom(segment.bytes)
    segment.view[:] = content
    descriptor = segment.read_only()
    with mmap.mmap(descriptor, segment.bytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as mapping:
        assert mapping[:] == content  # its pages are in this process's tables, small
        ready = []
        while segment.ready_bytes < segment.bytes:
            segment.enlarge()
            ready.append(segment.ready_bytes)
        assert ready == [STEP_BYTES, segment.bytes]
        assert mapping[:] == segment.view[:] == content
        assert segment.huge_bytes() == segment.bytes
        with pytest.raises(PermissionError):
            mmap.mmap(descriptor, segment.bytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(descriptor)
    segment.close()


@can_collapse
def test_what_was_added_gets_large_pages_too_and_what_was_there_stays() -> None:
    segment = Segment(HUGE_BYTES * 3 // 2, 4 * HUGE_BYTES)
    segment.view[:] = b"\5" * segment.bytes
    segment.touch()
    segment.grow(4 * HUGE_BYTES)
    assert segment.ready_bytes == HUGE_BYTES
    segment.touch()
    assert segment.huge_bytes() == 4 * HUGE_BYTES
    assert segment.view[:] == (b"\5" * (HUGE_BYTES * 3 // 2)).ljust(segment.bytes, b"\0")
    segment.close()


@pytest.mark.skipif(SHMEM_HUGE, reason="this machine gives large pages unasked")
def test_a_kernel_that_knows_no_such_advice_gives_small_pages_and_they_are_all_there() -> None:
    segment = Segment(2 * HUGE_BYTES, collapse=1 << 20)
    segment.view[HUGE_BYTES] = 5
    segment.touch()
    assert (segment.ready_bytes, segment.huge_bytes()) == (segment.bytes, 0)
    assert stored_bytes(segment) == segment.bytes
    assert segment.view[HUGE_BYTES] == 5
    segment.close()


@can_collapse
def test_a_worker_maps_a_segment_of_large_pages_with_a_fault_each() -> None:
    segment = Segment(8 * HUGE_BYTES)
    segment.touch()
    descriptor = segment.read_only()
    mapping = Mapping(segment.bytes, writable=True)
    mapping.place(descriptor, 0, segment.bytes)
    os.close(descriptor)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert not any(mapping.view[page] for page in range(0, segment.bytes, mmap.PAGESIZE))
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 100  # 4096 small pages would take 256, with 16 of them mapped at a time
    mapping.close()
    segment.close()


def test_touching_gives_it_its_pages_before_anybody_writes() -> None:
    segment = Segment(SIZE)
    assert stored_bytes(segment) == 0
    segment.touch()
    assert stored_bytes(segment) == SIZE
    assert bytes(segment.view) == bytes(SIZE)
    segment.close()


def stored_bytes(segment: Segment) -> int:
    """Bytes of a segment that the kernel has pages for."""
    descriptor = segment.read_only()
    blocks = os.fstat(descriptor).st_blocks
    os.close(descriptor)
    return blocks * 512


def test_closing_gives_the_memory_and_the_descriptors_back() -> None:
    before = descriptors(), mapped_bytes()
    segment = Segment(SIZE, 64 * HUGE_BYTES)
    segment.touch()
    assert mapped_bytes() > before[1]
    segment.close()
    assert (descriptors(), mapped_bytes()) == before


def test_a_segment_is_not_closed_under_who_reads_it() -> None:
    segment = Segment(SIZE)
    with segment.view[:1], pytest.raises(BufferError):
        segment.close()
    segment.close()


def mapped_bytes() -> int:
    """Of this process's address space, what segments and the borders around them take."""
    ranges = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "whimbrel-part" in line]
    return sum(int(end, 16) - int(start, 16) for start, end in (words[0].split("-") for words in ranges))
