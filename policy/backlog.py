"""Models that somebody waits for, and for which nothing is under way: who may use memory that becomes free."""

from bisect import bisect_left, bisect_right, insort
from typing import NamedTuple

Rank = tuple[float, ...]


class Wanting(NamedTuple):
    """A model that waits for room, by the rank of its first request: the lowest is next."""

    rank: Rank
    model: str


class Backlog:
    """Kept by the books: models by what a replica takes at least, in order of service where that is the same."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[int, Rank]] = {}
        self._lines: dict[int, list[Wanting]] = {}  # by bytes: there are not many sizes of models

    def put(self, model: str, rank: Rank, need_bytes: int) -> None:
        """It waits for so much room."""
        if self._places.get(model) == (need_bytes, rank):
            return
        self.drop(model)
        self._places[model] = need_bytes, rank
        insort(self._lines.setdefault(need_bytes, []), Wanting(rank, model))

    def drop(self, model: str) -> None:
        """It waits no more, or something is under way for it."""
        if place := self._places.pop(model, None):
            need_bytes, rank = place
            line = self._lines[need_bytes]
            del line[bisect_left(line, Wanting(rank, model))]
            if not line:
                del self._lines[need_bytes]

    def next(self, room_bytes: int, after: Wanting | None) -> Wanting | None:
        """The first in order, behind `after`, that takes no more than so much room."""
        lines = (line for need_bytes, line in self._lines.items() if need_bytes <= room_bytes)
        heads = ((line, bisect_right(line, after) if after else 0) for line in lines)
        return min((line[place] for line, place in heads if place < len(line)), default=None)

    def __len__(self) -> int:
        return len(self._places)
