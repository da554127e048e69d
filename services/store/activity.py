"""Whether somebody waits for this node's disk, so that work that nobody waits for can stand aside."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Activity:
    """Counts what is under way."""

    def __init__(self) -> None:
        self._busy = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """For the length of a load or a fetch."""
        self._busy += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._quiet.set()

    async def quiet(self) -> None:
        """Returns when nothing is under way."""
        await self._quiet.wait()
