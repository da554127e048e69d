"""Segments that hold nothing now. They are filled again rather than given back: fresh pages cost more than the disk."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence

from services.store.segments import Segment


class Spares:
    """By size. Those that somebody still has mapped wait until he has let go."""

    def __init__(self) -> None:
        self._by_size: defaultdict[int, list[Segment]] = defaultdict(list)
        self.bytes = 0

    def put(self, segments: Iterable[Segment]) -> None:
        """Keeps them."""
        for segment in segments:
            self._by_size[segment.bytes].append(segment)
            self.bytes += segment.bytes

    def take(self, size_bytes: int) -> Segment | None:
        """One of that size, else the largest that is smaller: a segment can grow, not shrink."""
        for size in sorted((size for size in self._by_size if size <= size_bytes), reverse=True):
            for segment in reversed(self._by_size[size]):
                if not segment.shared():
                    return self._remove(segment)
        return None

    def surplus(self, most_bytes: int) -> list[Segment]:
        """Takes out what is above `most_bytes`, small ones first: the large are all of one size, and fit anywhere."""
        taken: list[Segment] = []
        while self.bytes > max(most_bytes, 0):
            taken.append(self._remove(self._by_size[min(self._by_size)][0]))
        return taken

    def _remove(self, segment: Segment) -> Segment:
        same = self._by_size[segment.bytes]
        same.remove(segment)
        if not same:
            del self._by_size[segment.bytes]
        self.bytes -= segment.bytes
        return segment


async def close_all(segments: Sequence[Segment]) -> None:
    """Gives memory back, off the loop: the kernel takes about a quarter of a second for a GB."""

    def close() -> None:
        for segment in segments:
            segment.close()

    if segments:
        await asyncio.shield(asyncio.to_thread(close))
