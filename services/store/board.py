"""What is on its way to this node, over all fetches: nothing comes twice, and what somebody waits for goes first."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Board:
    """Shared by all fetches of a store."""

    def __init__(self) -> None:
        self.flying: set[tuple[str, int]] = set()  # units being read, or read and not yet named in their journal
        self._urgent = 0
        self._changed = asyncio.Event()

    @contextmanager
    def fetching(self, *, urgent: bool) -> Iterator[None]:
        """For the length of a fetch."""
        self._urgent += urgent
        try:
            yield
        finally:
            self._urgent -= urgent
            self.tell()

    def holds_back(self, *, urgent: bool) -> bool:
        """Whether a fetch is to take nothing new for now."""
        return bool(self._urgent) and not urgent

    def tell(self) -> None:
        """Something has landed, was given back, or ended."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Returns after the next `tell`."""
        await self._changed.wait()
