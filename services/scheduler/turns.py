"""Loads that pass through the same bus, disk or network come one after another: each waits here for its turn."""

import asyncio
import math
from dataclasses import dataclass, field

from mesh.clock import Clock
from policy.books import Books
from policy.knobs import Knobs
from policy.view import Spot


@dataclass(frozen=True, slots=True)
class Turns:
    """Of one leadership. Whoever hears how far loads have come says so by `look`."""

    books: Books
    clock: Clock
    knobs: Knobs
    waiting: dict[Spot, asyncio.Event] = field(default_factory=dict)

    async def of(self, spot: Spot) -> None:
        """Returns when a load may begin: when those before it are through, or take so long that they must be stuck."""
        loads, changed = self.books.loads, asyncio.Event()
        self.waiting[spot] = changed
        try:
            while (until_s := loads.turn_s(spot, self.clock.now())) is not None:
                changed.clear()
                await self._news(changed, until_s)
        finally:
            del self.waiting[spot]
        loads.take_turn(spot, self.clock.now(), self.books.rates, self.knobs)

    def look(self) -> None:
        """Some load has come further, or to its end."""
        for changed in self.waiting.values():
            changed.set()

    async def _news(self, changed: asyncio.Event, until_s: float) -> None:
        limit_s = None if until_s == math.inf else max(0.0, until_s - self.clock.now())
        try:
            async with asyncio.timeout(limit_s):
                await changed.wait()
        except TimeoutError:
            pass
