"""Address space: aligned, contiguous, given back."""

import mmap
import os
from pathlib import Path

import pytest

from mesh.mapping import HUGE_BYTES, Mapping, address_of, fresh, move

PAGE = mmap.PAGESIZE


def memory(content: bytes) -> int:
    """A memfd."""
    descriptor = os.memfd_create("whimbrel-mapping")
    os.write(descriptor, content)
    return descriptor


def mapped() -> int:
    """How many pieces of such memory this process has mapped."""
    return Path("/proc/self/maps").read_text().count("memfd:whimbrel-mapping")


@pytest.mark.parametrize("writable", [False, True])
def test_segments_lie_one_behind_the_other_from_a_huge_pages_border_on(writable: bool) -> None:
    mapping = Mapping(3 * PAGE, writable=writable)
    assert mapping.address % HUGE_BYTES == 0
    assert bytes(mapping.view) == bytes(3 * PAGE)
    for index, letter in enumerate(b"abc"):
        descriptor = memory(bytes([letter]) * PAGE)
        mapping.place(descriptor, index * PAGE, PAGE)
        os.close(descriptor)
    assert bytes(mapping.view) == b"a" * PAGE + b"b" * PAGE + b"c" * PAGE
    assert address_of(mapping.view) == mapping.address
    assert mapping.view.readonly is not writable
    mapping.release()
    assert bytes(mapping.view) == bytes(3 * PAGE)
    assert not mapped()


def test_what_is_written_to_a_writable_mapping_reaches_nobody_else() -> None:
    mapping, descriptor = Mapping(PAGE, writable=True), memory(b"a" * PAGE)
    mapping.place(descriptor, 0, PAGE)
    mapping.view[0] = 0
    assert os.pread(descriptor, 1, 0) == b"a"
    os.close(descriptor)


def test_the_last_view_keeps_the_memory_and_the_last_one_gone_gives_it_back() -> None:
    mapping, descriptor = Mapping(PAGE, writable=False), memory(b"a" * PAGE)
    mapping.place(descriptor, 0, PAGE)
    os.close(descriptor)
    view = mapping.view[1:]
    del mapping
    assert view[0] == ord("a")
    assert mapped() == 1
    del view
    assert not mapped()


@pytest.mark.parametrize(("offset", "length"), [(-PAGE, PAGE), (0, 0), (1, PAGE), (PAGE, 2 * PAGE), (2 * PAGE, PAGE)])
def test_nothing_is_laid_outside_or_off_a_pages_border(offset: int, length: int) -> None:
    descriptor = memory(bytes(4 * PAGE))
    with pytest.raises(ValueError, match="no range"):
        Mapping(2 * PAGE, writable=False).place(descriptor, offset, length)
    os.close(descriptor)


def test_a_descriptor_that_cannot_be_mapped_is_an_error_of_the_kernels() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        Mapping(PAGE, writable=False).place(-1, 0, PAGE)


def test_more_than_there_is_cannot_be_reserved() -> None:
    with pytest.raises(OSError, match="memory"):
        Mapping(1 << 62, writable=False)


def test_no_bytes_are_a_mapping_too() -> None:
    mapping = Mapping(0, writable=True)
    assert not mapping.view
    mapping.release()


def test_fresh_memory_is_ours_to_fill() -> None:
    mapping = fresh(PAGE + 1)
    move(memoryview(b"x" * (PAGE + 1)), mapping.address)
    assert bytes(mapping.view) == b"x" * (PAGE + 1)
