"""Time as a reason to look again."""

import asyncio
from collections.abc import Callable

from mesh.clock import Clock


class Alarm:
    """Rings once, at the earliest moment that it was set to since it last rang: later ones are set again by whoever
    looks then."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock, self._ring = clock, ring
        self._at_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, at_s: float | None) -> None:
        """To a reading of the clock; None: to nothing more than it is set to."""
        if at_s is None or (self._at_s is not None and self._at_s <= at_s):
            return
        self.off()
        self._at_s = at_s
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at_s - self._clock.now()), self._rings)

    def off(self) -> None:
        """It will not ring."""
        self._at_s = None
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _rings(self) -> None:
        self._at_s = self._timer = None
        self._ring()
