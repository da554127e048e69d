"""When no load is under way, so that what nobody waits for may take the interpreter's time."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Quiet:
    """Lives on the event loop."""

    def __init__(self) -> None:
        self._loads = 0
        self._none = asyncio.Event()
        self._none.set()

    @contextmanager
    def broken(self) -> Iterator[None]:
        """A load is under way for as long as the block runs."""
        self._loads += 1
        self._none.clear()
        try:
            yield
        finally:
            self._loads -= 1
            if not self._loads:
                self._none.set()

    async def come(self) -> None:
        """Returns at once, or when the last load has ended."""
        await self._none.wait()
