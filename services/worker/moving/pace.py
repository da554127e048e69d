"""How fast what moves may leave this worker, so that the tokens of what runs are not late: a bucket for all moves,
whose rate halves when a step's frames have waited, and comes back by and by."""

import asyncio
from collections.abc import Awaitable, Callable

LATE_S = 0.02  # frames that waited longer than this from their step to their line are late
CALM_S = 0.1  # the rate changes once in this time
LEAST = 1 / 64  # of the rate that is set
REGROWTH = 1.25


class Pace:
    """`most_bytes_s` is the rate while nobody is late; 0: unbounded, and lateness slows nothing."""

    def __init__(
        self,
        most_bytes_s: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._most, self._clock, self._sleep = most_bytes_s, clock, sleep
        self.bytes_s = most_bytes_s
        self._free_at = self._changed_at = clock()
        self._longest_s = 0.0  # that frames have waited since

    def frames(self, waited_s: float) -> None:
        """A step's frames have waited so long for the event loop."""
        now, self._longest_s = self._clock(), max(self._longest_s, waited_s)
        if now - self._changed_at < CALM_S:
            return
        factor = 0.5 if self._longest_s > LATE_S else REGROWTH
        self.bytes_s = min(self._most, max(self._most * LEAST, self.bytes_s * factor))
        self._changed_at, self._longest_s = now, 0.0

    async def leave(self, count_bytes: int) -> None:
        """Returns when so many bytes may go."""
        if not self._most:
            return
        now = self._clock()
        begins = max(now, self._free_at)
        self._free_at = begins + count_bytes / self.bytes_s
        if begins > now:
            await self._sleep(begins - now)
