"""Simulated time: events in order of their moments, and among those of one moment, of their rank and making."""

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Event:
    """What happens at a moment, unless cancelled before; nobody reads what it returns."""

    at_s: float
    act: Callable[[], object]
    cancelled: bool = False

    def cancel(self) -> None:
        """It will not happen."""
        self.cancelled = True


class Engine:
    """Nothing here draws or reads a clock: equal calls give equal runs."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.happened = 0
        self._heap: list[tuple[float, int, int, Event]] = []  # the number, of its making, is unlike any other's
        self._numbers = itertools.count()
        self._stopped = False

    def at(self, at_s: float, act: Callable[[], object], rank: int = 0) -> Event:
        """Lets `act` happen then; after everything of a lower rank at that moment. ValueError for what is past."""
        if at_s < self.now_s:
            raise ValueError(f"{at_s} s is past: it is {self.now_s} s")
        event = Event(at_s, act)
        heapq.heappush(self._heap, (at_s, rank, next(self._numbers), event))
        return event

    def after(self, delay_s: float, act: Callable[[], object]) -> Event:
        """Lets `act` happen in so many seconds."""
        return self.at(self.now_s + delay_s, act)

    def run(self, until_s: float = math.inf) -> None:
        """Until nothing is left to happen, that moment has passed, or somebody has said `stop`."""
        self._stopped = False
        heap = self._heap
        while heap and heap[0][0] <= until_s and not self._stopped:
            at_s, _, _, event = heapq.heappop(heap)
            if not event.cancelled:
                self.now_s = at_s
                self.happened += 1
                event.act()

    def stop(self) -> None:
        """Ends the run under way, after what happens now."""
        self._stopped = True
