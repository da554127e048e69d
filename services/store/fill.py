"""The reader threads' work: one checkpoint's bytes from its part files into memory, each unit hashed as it arrives."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from blake3 import blake3

from mesh.checkpoint.errors import CorruptUnit
from mesh.checkpoint.layout import Manifest, Unit

TELL_S = 0.05  # least time between two tellings of progress


class Source(Protocol):
    """Where a part's bytes come from."""

    def goes_direct(self, offset: int, length: int) -> bool:
        """Whether the range is to be read past the page cache."""

    def read_into(self, view: memoryview, offset: int, *, direct: bool) -> int:
        """Fills `view`; returns how many bytes there were."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Bytes read, by way."""

    direct_bytes: int = 0
    buffered_bytes: int = 0


class _Unit:
    """A unit on its way. Chunks may arrive in any order; they are hashed in order, by one thread at a time."""

    def __init__(self, unit: Unit, end: int, view: memoryview, chunk_bytes: int) -> None:
        self.unit, self.chunk_bytes = unit, chunk_bytes
        self.target = view[unit.offset : end]  # padding included
        self.arrived = bytearray(-(-len(self.target) // chunk_bytes))
        self.hashed = 0  # chunks
        self.hashing = False
        self.hash = blake3()

    def chunk(self, index: int) -> memoryview:
        return self.target[index * self.chunk_bytes : (index + 1) * self.chunk_bytes]

    def payload(self, index: int) -> memoryview:
        """The chunk without the padding after the unit."""
        end = min((index + 1) * self.chunk_bytes, self.unit.bytes)
        return self.target[min(index * self.chunk_bytes, end) : end]


class Fill:
    """Call `run` on as many threads as the disk likes; each returns when nothing is left, or after `stop`."""

    def __init__(
        self,
        manifest: Manifest,
        sources: Sequence[Source],
        views: Sequence[memoryview],
        *,
        chunk_bytes: int,
        verify: bool,
        tell: Callable[[int], None],
    ) -> None:
        self._digest, self._sources, self._verify, self._tell = manifest.digest, sources, verify, tell
        ends = _ends(manifest)
        self._units = [
            _Unit(unit, end, views[unit.part], chunk_bytes) for unit, end in zip(manifest.units, ends, strict=True)
        ]
        self._chunks = self._in_order()
        self._lock = threading.Lock()
        self._stopped = False
        self._told_s = 0.0
        self._direct_bytes = self._buffered_bytes = 0

    def run(self) -> None:
        """Reads chunk after chunk. Raises CorruptUnit; OSError when the disk fails."""
        while (chunk := self._next()) is not None:
            unit, index = chunk
            try:
                self._read(unit, index)
                if self._verify:
                    self._hash_what_arrived(unit, index)
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Every `run` returns within a chunk."""
        self._stopped = True

    def release(self) -> None:
        """Lets go of the memory; call it when every `run` has returned."""
        for unit in self._units:
            unit.target.release()

    @property
    def tally(self) -> Tally:
        """What has been read so far."""
        with self._lock:
            return Tally(self._direct_bytes, self._buffered_bytes)

    def _in_order(self) -> Iterator[tuple[_Unit, int]]:
        for unit in self._units:
            for index in range(len(unit.arrived)):
                yield unit, index

    def _next(self) -> tuple[_Unit, int] | None:
        with self._lock:
            return None if self._stopped else next(self._chunks, None)

    def _read(self, unit: _Unit, index: int) -> None:
        source, offset = self._sources[unit.unit.part], unit.unit.offset + index * unit.chunk_bytes
        with unit.chunk(index) as view:
            direct = source.goes_direct(offset, len(view))
            count = source.read_into(view, offset, direct=direct)
            if count < len(view):
                raise CorruptUnit(self._digest, unit.unit.name, f"its file ends {len(view) - count} bytes early")
        self._count(count, direct)

    def _count(self, count: int, direct: bool) -> None:
        now_s = time.monotonic()
        with self._lock:
            if direct:
                self._direct_bytes += count
            else:
                self._buffered_bytes += count
            due = now_s - self._told_s >= TELL_S
            if due:
                self._told_s = now_s
            done = self._direct_bytes + self._buffered_bytes
        if due:
            self._tell(done)

    def _hash_what_arrived(self, unit: _Unit, index: int) -> None:
        """Hashes on from where the unit's hash stands, unless another thread is at it: that one goes on to ours."""
        with self._lock:
            unit.arrived[index] = 1
            if unit.hashing:
                return
            unit.hashing = True
        while (ready := self._next_to_hash(unit)) is not None:
            with unit.payload(ready) as payload:
                unit.hash.update(payload)
            if ready == len(unit.arrived) - 1 and unit.hash.hexdigest() != unit.unit.hash:
                raise CorruptUnit(self._digest, unit.unit.name, "its bytes do not have its hash")

    def _next_to_hash(self, unit: _Unit) -> int | None:
        with self._lock:
            if unit.hashed == len(unit.arrived) or not unit.arrived[unit.hashed]:
                unit.hashing = False
                return None
            unit.hashed += 1
            return unit.hashed - 1


def _ends(manifest: Manifest) -> list[int]:
    """Where each unit's range of its part ends, padding included: at the next unit, or at the part's end."""
    ends: list[int] = []
    starts = [part.bytes for part in manifest.parts]
    for unit in reversed(manifest.units):
        ends.append(starts[unit.part])
        starts[unit.part] = unit.offset
    return ends[::-1]
