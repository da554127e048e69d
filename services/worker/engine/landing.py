"""The blocks of an arrival, for a thread beside the engine's that fills them while others are stepped."""

import threading
from collections.abc import Sequence

from services.worker.engine.beside import Beside, Bytes, Mark
from services.worker.engine.errors import ImportRefused, UnknownRequest


class Landing:
    """`here` blocks lead it that others may read, too. The engine's thread gives blocks by `grow` and takes all of them
    back by `end`, which waits for no more than the copy of one piece; in between, any thread may fill them."""

    def __init__(self, beside: Beside, here: int) -> None:
        self.beside, self.here = beside, here
        self.filled: set[int] = set()
        self._blocks: tuple[int, ...] = ()
        self._mark: Mark = None
        self._open, self._lock = True, threading.Lock()

    @property
    def room(self) -> int:
        """Blocks of the arrival that are there to be filled, the leading ones included."""
        return len(self._blocks)

    def grow(self, blocks: Sequence[int]) -> None:
        """From now on it has these; nobody has asked the device to do anything with the new ones later than now."""
        with self._lock:
            self._blocks, self._mark = tuple(blocks), self.beside.mark()

    def fill(self, first: int, end: int, data: Bytes) -> None:
        """Write what `Lap.read` gave of so many blocks; they may come again. UnknownRequest once it has ended, and
        ImportRefused for blocks that are not its own."""
        with self._lock:
            if not self._open:
                raise UnknownRequest("what a request that moves is written to is not its own any more")
            if not self.here <= first < end <= self.room:
                raise ImportRefused(f"blocks {first} to {end}: blocks {self.here} to {self.room} are to be filled")
            self.beside.write(self._blocks[first:end], data, self._mark)
            self.filled.update(range(first, end))

    def end(self) -> None:
        """Nothing is written any more."""
        with self._lock:
            self._open = False
