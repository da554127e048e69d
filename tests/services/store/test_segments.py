"""Segments: nobody but the store can change them, and the kernel says who has them."""

import fcntl
import mmap
import os
import socket
from collections.abc import Iterator

import pytest

from services.store.segments import Segment
from tests.services.store.serving import descriptors

SIZE = 1 << 20


@pytest.fixture
def segment() -> Iterator[Segment]:
    """A megabyte of fives."""
    segment = Segment(SIZE)
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
    before = descriptors()
    Segment(SIZE).close()
    assert descriptors() == before
