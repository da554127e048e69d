"""A unit on its way in: hashed piece by piece as it arrives, into its part file, into memory, or both."""

import os
import threading

from blake3 import blake3

from mesh.checkpoint.errors import CorruptUnit, StorageFailed
from mesh.checkpoint.layout import Manifest
from services.store.memory import PartMemory, clear, copy

CHUNK_BYTES = 1 << 20
SHARE_BYTES = 8 << 20  # of one call, which whoever stops a landing waits for


class Stopped(Exception):
    """Nobody wants the unit any more; nothing is written from now on."""


class Landing:
    """One unit. `put` may be called on any thread, one at a time; after `stop` has returned nothing is written."""

    def __init__(
        self, manifest: Manifest, index: int, taken_bytes: int, file: int | None, memory: PartMemory | None
    ) -> None:
        """`file` is a descriptor of its part file; `taken_bytes` is the unit with the padding behind it."""
        self.unit, self.index = manifest.units[index], index
        self._digest, self._taken_bytes = manifest.digest, taken_bytes
        self._file, self._memory = file, memory
        self._hash = blake3()
        self._lock = threading.Lock()
        self._stopped = False
        self.bytes_done = 0

    def put(self, data: bytes | memoryview) -> None:
        """The next bytes. Raises CorruptUnit when they are too many, StorageFailed, Stopped."""
        self._put(data, self._file)

    def copy(self, source: int, offset: int) -> None:
        """All of it from another file of this disk, whose bytes are shared where the file system can, and hashed."""
        shared = self._file is not None and self._shared(source, offset)
        file, start = (self._file, self.unit.offset) if shared and self._file is not None else (source, offset)
        while self.bytes_done < self.unit.bytes:
            count = min(CHUNK_BYTES, self.unit.bytes - self.bytes_done)
            data = os.pread(file, count, start + self.bytes_done)
            if not data:
                return  # finish says so
            self._put(data, None if shared else self._file)

    def finish(self) -> None:
        """All has come. Raises CorruptUnit unless it is, byte for byte, the unit."""
        if self.bytes_done < self.unit.bytes:
            raise CorruptUnit(self._digest, self.unit.name, f"{self.bytes_done} bytes came, not {self.unit.bytes}")
        if self._hash.hexdigest() != self.unit.hash:
            raise CorruptUnit(self._digest, self.unit.name, "its bytes do not have its hash")
        with self._lock:
            if self._stopped:
                raise Stopped
            self._clear_padding()

    def stop(self) -> None:
        """Waits for a `put` under way."""
        with self._lock:
            self._stopped = True

    def _put(self, data: bytes | memoryview, file: int | None) -> None:
        end = self.bytes_done + len(data)
        if end > self.unit.bytes:
            raise CorruptUnit(self._digest, self.unit.name, f"more than its {self.unit.bytes} bytes came")
        self._hash.update(data)
        with self._lock:
            if self._stopped:
                raise Stopped
            self._keep(memoryview(data), file)
            self.bytes_done = end

    def _keep(self, data: memoryview, file: int | None) -> None:
        offset = self.unit.offset + self.bytes_done
        if self._memory is not None:
            copy([memoryview(data)], self._memory.views(offset, len(data)))
        if file is not None:
            try:
                _write(file, data, offset)
            except OSError as error:
                raise StorageFailed(f"a unit cannot be written: {error}") from error

    def _shared(self, source: int, offset: int) -> bool:
        """Whether the kernel has copied all of the unit between the files, by reference where it can."""
        assert self._file is not None
        done = 0
        while done < self.unit.bytes:
            count = min(SHARE_BYTES, self.unit.bytes - done)
            with self._lock:
                if self._stopped:
                    raise Stopped
                try:
                    copied = os.copy_file_range(source, self._file, count, offset + done, self.unit.offset + done)
                except OSError:  # other file systems, or one that cannot; whatever it is, plain writes will tell
                    return False
            if copied == 0:
                return False
            done += copied
        return True

    def _clear_padding(self) -> None:
        """Memory may hold what was there before; in the file, what was never written reads as zeros."""
        if self._memory is not None:
            clear(self._memory.views(self.unit.offset + self.unit.bytes, self._taken_bytes - self.unit.bytes))


def _write(file: int, data: memoryview, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(file, data[done:], offset + done)
