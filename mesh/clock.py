"""Time, handed in: the machine's, and one that a test turns by hand."""

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that only grow; compare only readings of one clock."""

    def now(self) -> float:
        """Seconds since some fixed moment."""
        ...


class MonotonicClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Seconds since boot or thereabouts."""
        return time.monotonic()


class HandClock:
    """Stands still until turned."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now(self) -> float:
        """Where it was turned to."""
        return self._now_s

    def turn(self, seconds: float) -> None:
        """Lets `seconds` pass."""
        self._now_s += seconds
