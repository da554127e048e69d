"""A part in DRAM: a row of equal segments, any of which may be missing. And what fetches units into it from afar."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mesh.checkpoint.layout import Manifest, Part
from services.store.catalog import Stored
from services.store.segments import Segment


class PartMemory:
    """A part's bytes, `segment_bytes` a segment, the last one shorter. Whose segments come and go is the pool's."""

    def __init__(self, part: Part, segment_bytes: int) -> None:
        self.bytes, self.segment_bytes = part.bytes, segment_bytes
        self.segments: list[Segment | None] = [None] * -(-part.bytes // segment_bytes)

    def size(self, index: int) -> int:
        """Bytes of the part that lie in one segment."""
        return min(self.segment_bytes, self.bytes - index * self.segment_bytes)

    def views(self, offset: int, length: int) -> list[memoryview]:
        """The pieces of a byte range, in order; their segments must be there. Release them when done."""
        pieces = []
        while length > 0:
            index, start = divmod(offset, self.segment_bytes)
            segment = self.segments[index]
            assert segment is not None, "pin a checkpoint before reading its memory"
            piece = segment.view[start : min(start + length, self.segment_bytes)]
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return pieces

    def take(self, index: int) -> Segment | None:
        """Gives a segment up."""
        segment, self.segments[index] = self.segments[index], None
        return segment

    def covering(self, start: int, end: int) -> range:
        """The indexes of the segments that a byte range touches."""
        return range(start // self.segment_bytes, -(-end // self.segment_bytes)) if end > start else range(0)


class Fetcher(Protocol):
    """Brings units to this node that its disk lacks: from a peer's store, or from an origin."""

    async def fetch(
        self,
        stored: Stored,
        units: Sequence[int],
        views: Sequence[PartMemory] | None,
        arrived: Callable[[int], None],
        *,
        urgent: bool,
    ) -> None:
        """To the disk, and to `views`, one a part, when given; `arrived(unit)` on the loop, once its hash is right.

        Raises DataLoss or Unreachable when nobody has them.
        """


def extents(manifest: Manifest) -> list[tuple[int, int]]:
    """Each unit's range of its part with the padding after it, which ends at the next unit or at the part's end."""
    ranges: list[tuple[int, int]] = []
    ends = [part.bytes for part in manifest.parts]
    for unit in reversed(manifest.units):
        ranges.append((unit.offset, ends[unit.part]))
        ends[unit.part] = unit.offset
    return ranges[::-1]


def copy(source: Sequence[memoryview], target: Sequence[memoryview]) -> None:
    """Copies pieces to pieces, of equal length together, and releases them all. Other threads run meanwhile."""
    for taken, given in _matched(source, target):
        with taken, given:
            np.copyto(np.frombuffer(given, np.uint8), np.frombuffer(taken, np.uint8))
    release([*source, *target])


@dataclass(frozen=True, slots=True)
class Place:
    """Where in memory bytes lie."""

    part: PartMemory
    offset: int


def clear(views: Sequence[memoryview]) -> None:
    """Zeroes a short range, and releases it."""
    for view in views:
        view[:] = bytes(len(view))
    release(views)


def release(views: Sequence[memoryview]) -> None:
    """Lets go of memory, so that its segment can be closed."""
    for view in views:
        view.release()


def _matched(source: Sequence[memoryview], target: Sequence[memoryview]) -> Iterator[tuple[memoryview, memoryview]]:
    """Slices of equal length."""
    targets = iter(target)
    given, at = next(targets, memoryview(b"")), 0
    for taken in source:
        begin = 0
        while begin < len(taken):
            if at == len(given):
                given, at = next(targets), 0
            count = min(len(taken) - begin, len(given) - at)
            yield taken[begin : begin + count], given[at : at + count]
            begin, at = begin + count, at + count
