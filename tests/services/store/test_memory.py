"""Memory in pieces."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mesh.checkpoint.layout import Part
from services.store.memory import PartMemory, clear, copy, extents
from services.store.segments import Segment
from tests.services.store.inside import SEGMENT, bytes_in
from tests.services.store.made import MB, manifest_of_sizes


def pieces(data: bytearray, cuts: list[int]) -> list[memoryview]:
    """The data, cut."""
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [memoryview(data)[start:end] for start, end in pairwise(bounds)]


CUTS = st.lists(st.integers(1, 200), max_size=6)


@given(st.binary(max_size=200), CUTS, CUTS)
def test_bytes_are_copied_whatever_pieces_they_lie_in(
    data: bytes, source_cuts: list[int], target_cuts: list[int]
) -> None:
    source, target = bytearray(data), bytearray(len(data))
    copy(pieces(source, source_cuts), pieces(target, target_cuts))
    assert target == data
    source.clear()  # raises while anybody looks at it
    target.clear()


def test_a_range_is_its_pieces_in_order() -> None:
    memory = PartMemory(Part("part-000.bin", 0, 5 * MB), SEGMENT)
    memory.segments = [Segment(memory.size(index)) for index in range(3)]
    assert [segment.bytes for segment in memory.segments if segment] == [2 * MB, 2 * MB, MB]
    views = memory.views(2 * MB - 3, 2 * MB + 6)
    assert [len(view) for view in views] == [3, 2 * MB, 3]
    for number, view in enumerate(views, 1):
        view[:] = bytes([number]) * len(view)
        view.release()
    assert bytes_in(memory, 2 * MB - 4, 5) == b"\0\1\1\1\2"
    assert bytes_in(memory, 4 * MB - 1, 5) == b"\2\3\3\3\0"
    clear(memory.views(2 * MB - 2, 4))
    assert bytes_in(memory, 2 * MB - 3, 6) == b"\1\0\0\0\0\2"
    assert memory.views(5 * MB, 0) == []
    for segment in memory.segments:
        assert segment is not None
        segment.close()  # raises while anybody looks at it


def test_a_units_extent_reaches_to_the_next_one_or_to_the_end_of_its_part() -> None:
    manifest = manifest_of_sizes(((5000, 4096, 1), (7,)))
    assert extents(manifest) == [(0, 8192), (8192, 12288), (12288, 16384), (0, 4096)]
