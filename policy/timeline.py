"""Moments by key: which have come, and which is next."""

import heapq
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar, final

SPARE = 64  # entries of a heap that may be out of date before it is made anew, beside as many as are not


K = TypeVar("K", bound=Hashable)


@final
class Look(Generic[K]):
    """What a timeline shows at a moment: keys whose moment has come, oldest first, and when the next one comes."""

    __slots__ = ("due", "next_s")

    def __init__(self, due: list[K], next_s: float | None) -> None:
        self.due: Final = due
        self.next_s: Final = next_s


class Timeline(Generic[K]):
    """A moment for each key, in seconds. Changes take O(log n), and a look takes what it finds."""

    def __init__(self) -> None:
        self.at_s: dict[K, float] = {}
        self._heap: list[tuple[float, K]] = []

    def put(self, key: K, at_s: float) -> None:
        """Sets the moment of a key."""
        if self.at_s.get(key) == at_s:
            return
        self.at_s[key] = at_s
        heapq.heappush(self._heap, (at_s, key))
        if len(self._heap) > 2 * len(self.at_s) + SPARE:
            self._heap = [(moment, one) for one, moment in self.at_s.items()]
            heapq.heapify(self._heap)

    def drop(self, key: K) -> None:
        """Forgets a key, if it is there."""
        self.at_s.pop(key, None)
        self._sweep()

    def look(self, now: float, after_s: float = 0.0, counts: Callable[[K], bool] | None = None) -> Look[K]:
        """The keys of which `after_s` has passed by `now` since their moment, oldest first, and when the next will be
        one. Keys that do not count are as if they were not there."""
        self._sweep()
        if not self._heap:
            return Look([], None)
        at_s, key = self._heap[0]
        if at_s + after_s > now and (counts is None or counts(key)):
            return Look([], at_s + after_s)  # the usual case: all others come later
        return self._search(now, after_s, counts)

    def _sweep(self) -> None:
        """Takes from the top of the heap what is out of date."""
        while self._heap and self.at_s.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)

    def _search(self, now: float, after_s: float, counts: Callable[[K], bool] | None) -> Look[K]:
        due: dict[K, float] = {}
        next_s: float | None = None
        places = [0]
        while places:
            place = places.pop()
            if place >= len(self._heap):
                continue
            at_s, key = self._heap[place]
            if self.at_s.get(key) == at_s and (counts is None or counts(key)):
                if at_s + after_s > now:
                    next_s = at_s + after_s if next_s is None else min(next_s, at_s + after_s)
                    continue
                due[key] = at_s
            places += (2 * place + 1, 2 * place + 2)
        return Look([key for _, key in sorted((at_s, key) for key, at_s in due.items())], next_s)
