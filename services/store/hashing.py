"""A unit's hash, from pieces that several threads bring in any order."""

import threading

from blake3 import blake3


class InOrder:
    """Hashes [start, end) piece after piece, one thread at a time: the others leave theirs and go on."""

    def __init__(self, start: int, end: int) -> None:
        self._lock = threading.Lock()
        self._hash = blake3()
        self._reached, self._end = start, end
        self._waiting: dict[int, tuple[int, memoryview]] = {}
        self._busy = False

    def add(self, start: int, end: int, payload: memoryview) -> str | None:
        """Takes over the piece [start, end), of which `payload` is hashed: without padding.

        The hash, in hex, to whom it falls to finish it; None to everybody else.
        """
        with self._lock:
            self._waiting[start] = (end, payload)
            if self._busy:
                return None
            self._busy = True
        while (piece := self._next()) is not None:
            with piece:
                self._hash.update(piece)
            if self._reached == self._end:  # we stay busy: nobody else finishes it
                return self._hash.hexdigest()
        return None

    def release(self) -> None:
        """Lets go of pieces that were never hashed; call it when nobody adds any more."""
        for _, payload in self._waiting.values():
            payload.release()
        self._waiting.clear()

    def _next(self) -> memoryview | None:
        """The piece that comes next; None when it has not come: whoever brings it goes on."""
        with self._lock:
            if self._reached not in self._waiting:
                self._busy = False
                return None
            self._reached, payload = self._waiting.pop(self._reached)
            return payload
