"""The memory that rings are made of: set aside beside the pool, so that what is larger than the pool can be read."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from mesh.errors import NoRoom
from services.store.segments import Segment
from services.store.spares import Spares, close_all


class Slots:
    """Lends at most `rings` rings of `count` slots at once; the next one waits. A slot is one segment."""

    def __init__(self, rings: int, count: int, slot_bytes: int) -> None:
        self.slot_bytes = slot_bytes
        self._count = count
        self._turns = asyncio.Semaphore(rings)
        self._spares = Spares()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await close_all(self._spares.surplus(0))

    @asynccontextmanager
    async def ring(self) -> AsyncIterator[Sequence[Segment]]:
        """Slots that nobody else has, or still has mapped."""
        async with self._turns:
            slots: list[Segment] = []
            try:
                for _ in range(self._count):
                    slots.append(self._spares.take(self.slot_bytes) or Segment(self.slot_bytes))
            except OSError as error:
                self._spares.put(slots)
                raise NoRoom(f"the machine gave no memory for a ring: {error}", retry_after_s=1.0) from error
            try:
                yield slots
            finally:
                mapped = [slot for slot in slots if slot.shared()]  # theirs from now on
                self._spares.put(slot for slot in slots if slot not in mapped)
                await close_all(mapped)
