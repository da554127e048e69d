"""A ring of slots through which units of any number go in order: filled by the readers, taken, and filled again."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from blake3 import blake3

from mesh.checkpoint.errors import CorruptUnit
from mesh.checkpoint.layout import ALIGNMENT, Manifest, Unit
from mesh.checkpoint.records import align_up
from mesh.errors import InvalidRequest
from services.store.fill import Source, Tally
from services.store.memory import Place, copy


@dataclass(frozen=True, slots=True)
class SlotFilled:
    """`bytes` of a unit, from `offset` within it, lie at the start of a slot."""

    slot: int
    unit: int
    offset: int
    bytes: int


class _Piece:
    """A range of a unit on its way to a slot."""

    __slots__ = ("_ring", "bytes", "number", "offset", "slot", "unit")

    def __init__(self, ring: "Ring", number: int, slot: int, where: tuple[int, int, int]) -> None:
        self._ring, self.number, self.slot = ring, number, slot
        self.unit, self.offset, self.bytes = where

    def run(self) -> None:
        self._ring.read(self)


class Ring:
    """Work for Turns. Slots are announced in the order of the units asked for, each after its bytes are hashed.

    So a unit's last bytes are never announced unless all of them are right: that ends it with CorruptUnit. `here` says
    whether a unit can be read already; call `wake` of the work when that has changed.
    """

    def __init__(
        self,
        manifest: Manifest,
        units: Sequence[int],
        slots: Sequence[memoryview],
        sources: Mapping[int, Source],
        places: Mapping[int, Place],
        *,
        here: Callable[[int], bool],
        verify: bool,
    ) -> None:
        self._manifest, self._slots, self._sources, self._places = manifest, slots, sources, places
        self._here, self._verify = here, verify
        self._loop = asyncio.get_running_loop()
        self._moved = asyncio.Event()
        self._announced: deque[SlotFilled] = deque()
        self._ranges = self._in_order(units)
        self._next = next(self._ranges, None)
        self._free = deque(range(len(slots)))
        self._taken: set[int] = set()  # announced, and not given back
        self._lock = threading.Lock()
        self._handed_out = self._settled = 0  # pieces
        self._read: dict[int, _Piece] = {}
        self._settling = False
        self._hash = blake3()
        self._memory_bytes = self._direct_bytes = self._buffered_bytes = 0

    @property
    def exhausted(self) -> bool:
        """Whether every range has been handed out."""
        return self._next is None

    @property
    def tally(self) -> Tally:
        """What has been read so far."""
        return Tally(self._memory_bytes, self._direct_bytes, self._buffered_bytes)

    def take(self) -> _Piece | None:
        """The next range, if there is a slot for it and its unit is here."""
        if self._next is None or not self._free or not self._here(self._next[0]):
            return None
        piece = _Piece(self, self._handed_out, self._free.popleft(), self._next)
        self._handed_out += 1
        self._next = next(self._ranges, None)
        return piece

    def free(self, slot: int) -> None:
        """The slot's bytes have been taken. Raises InvalidRequest unless it had been announced."""
        if slot not in self._taken:
            raise InvalidRequest.field("slot", f"{slot} is not a filled one")
        self._taken.remove(slot)
        self._free.append(slot)

    async def filled(self, ended: asyncio.Future[None]) -> AsyncGenerator[SlotFilled, None]:
        """Slots as they are filled, until `ended` is done and all have been told of."""
        ended.add_done_callback(lambda _: self._moved.set())
        while self._announced or not ended.done():
            if not self._announced:
                self._moved.clear()
                await self._moved.wait()
            while self._announced:
                filled = self._announced.popleft()
                self._taken.add(filled.slot)
                yield filled

    def read(self, piece: _Piece) -> None:
        """On a reader's thread."""
        unit = self._manifest.units[piece.unit]
        if place := self._places.get(piece.unit):
            source = place.part.views(place.offset + piece.offset, piece.bytes)
            copy(source, [self._slots[piece.slot][: piece.bytes]])
            self._count(memory=piece.bytes)
        else:
            self._from_disk(piece, unit)
        self._settle(piece)

    def _in_order(self, units: Sequence[int]) -> Iterator[tuple[int, int, int]]:
        """Unit, offset, bytes."""
        slot_bytes = len(self._slots[0])
        for index in units:
            count = self._manifest.units[index].bytes
            for offset in range(0, count, slot_bytes):
                yield index, offset, min(slot_bytes, count - offset)

    def _from_disk(self, piece: _Piece, unit: Unit) -> None:
        source, offset = self._sources[unit.part], unit.offset + piece.offset
        with self._slots[piece.slot][: align_up(piece.bytes, ALIGNMENT)] as view:
            direct = source.goes_direct(offset, len(view))
            count = source.read_into(view, offset, direct=direct)
        if count < piece.bytes:
            raise self._corrupt(unit, "its file ends early")
        self._count(direct=count if direct else 0, buffered=0 if direct else count)

    def _settle(self, piece: _Piece) -> None:
        """Announces what is next in order, and on from there; one thread at a time, the others leave theirs to it."""
        with self._lock:
            self._read[piece.number] = piece
            if self._settling:
                return
            self._settling = True
        while (ready := self._next_settled()) is not None:
            if self._verify and ready.unit not in self._places:
                self._check(ready)
            self._announced.append(SlotFilled(ready.slot, ready.unit, ready.offset, ready.bytes))
            self._loop.call_soon_threadsafe(self._moved.set)

    def _next_settled(self) -> _Piece | None:
        with self._lock:
            piece = self._read.pop(self._settled, None)
            if piece is None:
                self._settling = False
            else:
                self._settled += 1
            return piece

    def _check(self, piece: _Piece) -> None:
        unit = self._manifest.units[piece.unit]
        if piece.offset == 0:
            self._hash = blake3()
        with self._slots[piece.slot][: piece.bytes] as view:
            self._hash.update(view)
        if piece.offset + piece.bytes == unit.bytes and self._hash.hexdigest() != unit.hash:
            raise self._corrupt(unit, "its bytes do not have its hash")

    def _corrupt(self, unit: Unit, why: str) -> CorruptUnit:
        return CorruptUnit(self._manifest.digest, unit.name, why)

    def _count(self, *, memory: int = 0, direct: int = 0, buffered: int = 0) -> None:
        with self._lock:
            self._memory_bytes += memory
            self._direct_bytes += direct
            self._buffered_bytes += buffered
