"""The readers' work on one load: missing units, from part files or from other memory, each hashed as it arrives."""

import errno
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from mesh.checkpoint.errors import CorruptUnit
from mesh.checkpoint.layout import Unit
from services.store.hashing import InOrder
from services.store.memory import Place, clear, copy
from services.store.resident import Resident

TELL_S = 0.05  # least time between two tellings of progress


class Source(Protocol):
    """Where a part's bytes come from."""

    def goes_direct(self, offset: int, length: int) -> bool:
        """Whether the range is to be read past the page cache."""

    def read_into(self, view: memoryview, offset: int, *, direct: bool) -> int:
        """Fills `view`; returns how many bytes there were."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Bytes that came, by where from; padding counts."""

    memory_bytes: int = 0
    direct_bytes: int = 0
    buffered_bytes: int = 0
    fetched_bytes: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.memory_bytes + other.memory_bytes,
            self.direct_bytes + other.direct_bytes,
            self.buffered_bytes + other.buffered_bytes,
            self.fetched_bytes + other.fetched_bytes,
        )

    @property
    def disk_bytes(self) -> int:
        """From this node's disk or its page cache."""
        return self.direct_bytes + self.buffered_bytes

    @property
    def total_bytes(self) -> int:
        """From anywhere."""
        return self.memory_bytes + self.disk_bytes + self.fetched_bytes


class Listener(Protocol):
    """Who hears how a fill goes, on a reader's thread."""

    def arrived(self, unit: int) -> None:
        """A unit is whole, and right if it was to be verified."""

    def moved(self, bytes_done: int) -> None:
        """So many bytes have come; at most every TELL_S."""


class _Unit:
    """A unit on its way. Its pieces arrive in any order."""

    __slots__ = ("end", "hash", "index", "left_bytes", "place", "start", "unit")

    def __init__(self, index: int, unit: Unit, extent: tuple[int, int], place: Place | None, *, verify: bool) -> None:
        self.index, self.unit, self.place = index, unit, place
        self.start, self.end = extent
        self.left_bytes = self.end - self.start
        self.hash = InOrder(self.start, self.end) if verify and place is None else None

    @property
    def source(self) -> tuple[int, int]:
        """Equal for neighbours that can be read in one piece."""
        return self.unit.part, self.index if self.place else -1


class _Piece:
    """A range of a part that lies in one segment, and the units that it touches."""

    __slots__ = ("_fill", "end", "start", "units")

    def __init__(self, fill: "Fill", start: int, end: int, units: list[_Unit]) -> None:
        self._fill, self.start, self.end, self.units = fill, start, end, units

    @property
    def bytes(self) -> int:
        return self.end - self.start

    def run(self) -> None:
        self._fill.read(self)


class Fill:
    """Work for Turns. `sources` are the part files, by part; `places` has the units that are copied from memory.

    A unit that proves damaged ends it with CorruptUnit, or with OSError when the disk cannot read it; with
    `keep_going` it is noted in `lost` instead.
    """

    def __init__(
        self,
        resident: Resident,
        units: Sequence[int],
        sources: Mapping[int, Source],
        places: Mapping[int, Place],
        listener: Listener,
        *,
        chunk_bytes: int,
        verify: bool,
        keep_going: bool,
    ) -> None:
        self._resident, self._sources, self._listener = resident, sources, listener
        self._chunk_bytes, self._keep_going = chunk_bytes, keep_going
        self._units = [
            _Unit(index, resident.manifest.units[index], resident.extents[index], places.get(index), verify=verify)
            for index in sorted(units)
        ]
        self.lost: dict[int, CorruptUnit | OSError] = {}
        self.exhausted = False
        self._pieces = self._in_order()
        self._lock = threading.Lock()
        self._told_s = 0.0
        self._memory_bytes = self._direct_bytes = self._buffered_bytes = 0

    def take(self) -> _Piece | None:
        """The next piece."""
        piece = next(self._pieces, None)
        self.exhausted = piece is None
        return piece

    def read(self, piece: _Piece) -> None:
        """On a reader's thread."""
        if piece.units[0].place:
            self._copy(piece, piece.units[0], piece.units[0].place)
            return
        try:
            self._read(piece)
        except CorruptUnit as error:
            self._lose(piece.units, error)
        except OSError as error:
            if error.errno != errno.EIO:
                raise  # not these bytes' fault
            self._lose(piece.units, error)

    def release(self) -> None:
        """Lets go of the memory; call it when nothing is read any more."""
        for unit in self._units:
            if unit.hash:
                unit.hash.release()

    @property
    def tally(self) -> Tally:
        """What has come so far."""
        with self._lock:
            return Tally(self._memory_bytes, self._direct_bytes, self._buffered_bytes)

    def _in_order(self) -> Iterator[_Piece]:
        for run in self._runs():
            step_bytes, first = self._resident.parts[run[0].unit.part].segment_bytes, 0
            at, end = run[0].start, run[-1].end
            while at < end:
                cut = min(end, _next_multiple(at, self._chunk_bytes), _next_multiple(at, step_bytes))
                last = first
                while last + 1 < len(run) and run[last + 1].start < cut:
                    last += 1
                yield _Piece(self, at, cut, run[first : last + 1])
                first = last if run[last].end > cut else last + 1
                at = cut

    def _runs(self) -> Iterator[list[_Unit]]:
        """Units that lie one behind the other and come from the same place."""
        for _, neighbours in groupby(self._units, key=lambda unit: unit.source):
            run: list[_Unit] = []
            for unit in neighbours:
                if run and run[-1].end != unit.start:
                    yield run
                    run = []
                run.append(unit)
            yield run

    def _read(self, piece: _Piece) -> None:
        part = piece.units[0].unit.part
        source = self._sources[part]
        (view,) = self._resident.parts[part].views(piece.start, piece.bytes)
        with view:
            direct = source.goes_direct(piece.start, piece.bytes)
            count = source.read_into(view, piece.start, direct=direct)
            if count < piece.bytes:
                raise self._corrupt(piece.units[0].unit, f"its file ends {piece.bytes - count} bytes early")
            self._count(direct=count if direct else 0, buffered=0 if direct else count)
            for unit in piece.units:
                self._deliver(unit, piece, view)

    def _copy(self, piece: _Piece, unit: _Unit, place: Place) -> None:
        memory = self._resident.parts[unit.unit.part]
        end = max(piece.start, min(piece.end, unit.start + unit.unit.bytes))
        count = end - piece.start
        copy(place.part.views(place.offset + piece.start - unit.start, count), memory.views(piece.start, count))
        clear(memory.views(end, piece.end - end))
        self._count(memory=piece.bytes)
        self._took(unit, piece.bytes)

    def _deliver(self, unit: _Unit, piece: _Piece, view: memoryview) -> None:
        start, end = max(piece.start, unit.start), min(piece.end, unit.end)
        if unit.hash is None:
            self._took(unit, end - start)
            return
        payload_end = max(start, min(end, unit.start + unit.unit.bytes))
        found = unit.hash.add(start, end, view[start - piece.start : payload_end - piece.start])
        if found == unit.unit.hash:
            self._listener.arrived(unit.index)
        elif found is not None:
            self._lose([unit], self._corrupt(unit.unit, "its bytes do not have its hash"))

    def _took(self, unit: _Unit, count: int) -> None:
        with self._lock:
            unit.left_bytes -= count
            whole = not unit.left_bytes
        if whole:
            self._listener.arrived(unit.index)

    def _lose(self, units: Sequence[_Unit], error: CorruptUnit | OSError) -> None:
        """A unit that lacks a piece never becomes whole."""
        if not self._keep_going:
            raise error
        with self._lock:
            for unit in units:
                self.lost.setdefault(unit.index, error)

    def _corrupt(self, unit: Unit, why: str) -> CorruptUnit:
        return CorruptUnit(self._resident.digest, unit.name, why)

    def _count(self, *, memory: int = 0, direct: int = 0, buffered: int = 0) -> None:
        now_s = time.monotonic()
        with self._lock:
            self._memory_bytes += memory
            self._direct_bytes += direct
            self._buffered_bytes += buffered
            due = now_s - self._told_s >= TELL_S
            if due:
                self._told_s = now_s
            done = self._memory_bytes + self._direct_bytes + self._buffered_bytes
        if due:
            self._listener.moved(done)


def _next_multiple(number: int, step: int) -> int:
    return (number // step + 1) * step
