"""An origin whose files are bytes in memory; it notes what is read, and a test may act on each read."""

import threading
from collections.abc import Callable, Mapping

from mesh.checkpoint.errors import NotACheckpoint


class MemoryOrigin:
    """Calls `on_read` with the file, the offset and the count before each read, in the thread that reads."""

    url = "memory:"
    identity = "always the same"

    def __init__(self, files: Mapping[str, bytes], on_read: Callable[[str, int, int], None] | None = None) -> None:
        self._files, self._on_read = files, on_read
        self._lock = threading.Lock()
        self.reads: list[tuple[str, int, int]] = []

    @property
    def bytes_read(self) -> int:
        """By all reads together."""
        return sum(count for _, _, count in self.reads)

    def names(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(sorted(self._files))

    def size(self, name: str) -> int | None:
        """Bytes of a file."""
        return len(self._files[name]) if name in self._files else None

    def read_into(self, name: str, offset: int, view: memoryview) -> None:
        """Copies."""
        with self._lock:
            self.reads.append((name, offset, len(view)))
        if self._on_read is not None:
            self._on_read(name, offset, len(view))
        data = self._files[name][offset : offset + len(view)]
        if len(data) < len(view):
            raise NotACheckpoint(f"{name} is too short")
        view[:] = data

    def close(self) -> None:
        """Nothing to let go of."""
