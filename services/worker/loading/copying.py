"""A device with memory of its own: pieces are copied into it as they come, on one thread, in order."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog
from blake3 import blake3
from torch import Tensor

from mesh.checkpoint.errors import CorruptUnit
from mesh.checkpoint.layout import Manifest
from mesh.clients.store import Stat, StoreClient
from mesh.errors import Broken, DataLoss, NoRoom
from mesh.facts import Tier
from mesh.mapping import Mapping, address_of, move
from services.worker.loading.device import Tell, Weights, arriving
from services.worker.loading.piece import Piece, Source
from services.worker.loading.supply import Supply
from services.worker.loading.threads import ended, ending_with
from services.worker.settings import Transport

log = structlog.get_logger()
CORRUPT_UNIT = "CORRUPT_UNIT"
COPY_BYTES = 8 << 20  # of one copy: a load that is cancelled ends within as many
PIN_BYTES = 64 << 20  # of one page-locking, a multiple of COPY_BYTES
FLYING = 4  # copies under way at a time, and slots of the staging ring
TRIES = 3  # of reading bytes that pass by: a unit found damaged has gone out in part, and is fetched for the next try
QUEUED = 16  # pieces that wait for the thread: MiB when they come by gRPC


class Copier(Protocol):
    """A device's memory. Calls block, and come from one thread at a time; they raise OSError or MemoryError."""

    name: str
    """As the worker's facts have it."""
    needs_pinned: bool
    """Whether copies must start from page-locked memory."""

    def allocate(self, size: int) -> Tensor:
        """uint8 [size], of any content, given back with its last view."""

    def page_locked(self, size: int) -> memoryview:
        """Memory of this process that copies may start from."""

    def pin(self, mapping: Mapping, start: int, size: int) -> None:
        """Page-locks a range of a mapping. Raises OSError where that cannot be done."""

    def unpin(self, mapping: Mapping, start: int) -> None:
        """Ends what `pin` began at `start`."""

    def copy(self, target: Tensor, offset: int, source: memoryview) -> None:
        """Starts copying `source`, which stays as it is until done, to `offset` of what `allocate` gave."""

    def mark(self) -> Callable[[], None]:
        """What waits for the copies that have been started so far."""


class CopyDevice:
    """Copies each unit as soon as the store has it, while the store reads the next."""

    def __init__(self, stores: StoreClient, transport: Transport, copier: Copier) -> None:
        self.name, self._copier = copier.name, copier
        self._supply = Supply(stores, transport, writable=False)

    @asynccontextmanager
    async def load(self, address: str, stat: Stat, tell: Tell) -> AsyncIterator[Weights]:
        """See Device. Of the store nothing is held once the weights are complete."""
        parts = await self.allocate(stat.manifest)
        async with arriving(parts, self._from_supply(address, stat, parts, tell)) as weights:
            yield weights

    async def allocate(self, manifest: Manifest) -> list[Tensor]:
        """The parts, empty. Raises NoRoom."""
        try:
            return await asyncio.to_thread(lambda: [self._copier.allocate(part.bytes) for part in manifest.parts])
        except (OSError, MemoryError) as error:
            raise NoRoom(f"the device gave no memory: {error}", reason="NO_DEVICE_MEMORY") from error

    async def fill(self, source: Source, manifest: Manifest, parts: list[Tensor], tell: Tell) -> Tier:
        """Copies everything; the tier that it came from. Whatever happens, no copy is under way afterwards."""
        left = TRIES if source.repeatable else 1
        while True:
            left -= 1
            try:
                await self._copy_all(source, manifest, parts, tell)
            except OSError as error:
                raise Broken(f"copying to the device failed: {error}", reason="DEVICE_FAILED") from error
            except DataLoss as error:
                if error.reason != CORRUPT_UNIT or not left:
                    raise
                log.warning("a unit was damaged; all is read again", digest=manifest.digest, why=error.message)
            else:
                return source.tier

    async def _copy_all(self, source: Source, manifest: Manifest, parts: list[Tensor], tell: Tell) -> None:
        async with source.pieces(tell) as pieces, copying(Copies(self._copier, manifest, parts)) as put:
            async for piece in pieces:
                await put(piece)

    async def _from_supply(self, address: str, stat: Stat, parts: list[Tensor], tell: Tell) -> Tier:
        async with self._supply.open(address, stat) as source:
            return await self.fill(source, stat.manifest, parts, tell)


@dataclass(frozen=True, slots=True)
class _Flight:
    """A copy under way."""

    wait: Callable[[], None]
    slot: memoryview | None  # of the staging ring
    landed: Callable[[], None] | None  # of the last copy of a piece


class Copies:
    """What the thread does: `run`, `land` and `close` are called on it, `coming` and `stop` from anywhere."""

    def __init__(self, copier: Copier, manifest: Manifest, parts: list[Tensor]) -> None:
        self._copier, self._manifest, self._parts = copier, manifest, parts
        self._flying: deque[_Flight] = deque()
        self._slots: list[memoryview] = []  # of the staging ring, free ones
        self._pinned: dict[tuple[int, int], Mapping] = {}  # by whose range it is, and where that starts
        self._can_pin = True
        self._hash = blake3()
        self._lock = threading.Lock()
        self._coming = 0
        self._stopped = False

    def coming(self, count: int) -> int:
        """Counts the pieces that wait for the thread."""
        with self._lock:
            self._coming += count
            return self._coming

    def stop(self) -> None:
        """Ends `run` within a chunk."""
        self._stopped = True

    def run(self, piece: Piece, landed: Callable[[], None]) -> None:
        """Copies a piece; `landed` is called when its bytes are needed no more. Raises DataLoss for wrong ones."""
        waiting = self.coming(-1)
        unit = self._manifest.units[piece.unit]
        for start, end in _chunks(piece):
            if self._stopped:
                return
            chunk = piece.data[start:end]
            if piece.home is None:
                self._check(piece.unit, piece.offset + start, chunk)
            source, slot = self._ready(piece, start, chunk)
            self._copier.copy(self._parts[unit.part], unit.offset + piece.offset + start, source)
            last = end == len(piece.data)
            self._flying.append(_Flight(self._copier.mark(), slot, landed if last else None))
            self.land(FLYING)
        if not waiting:
            self.land()  # whoever fills the next piece may wait for the memory of this one

    def land(self, leave: int = 0) -> None:
        """Waits until at most `leave` copies are under way."""
        while len(self._flying) > leave:
            flight = self._flying.popleft()
            flight.wait()
            if flight.slot is not None:
                self._slots.append(flight.slot)
            if flight.landed is not None:
                flight.landed()

    def close(self) -> None:
        """Waits for the copies under way and ends all page-locking."""
        try:
            self._copier.mark()()
        finally:
            self._flying.clear()
            self._slots.clear()
            while self._pinned:
                (_, start), mapping = self._pinned.popitem()
                self._copier.unpin(mapping, start)

    def _ready(self, piece: Piece, start: int, chunk: memoryview) -> tuple[memoryview, memoryview | None]:
        """Where the chunk can be copied from, and the staging slot that it lies in there, if in one."""
        if not self._copier.needs_pinned or (piece.home is not None and self._pin(piece.home, piece.start + start)):
            return chunk, None
        slot = self._slots.pop() if self._slots else self._copier.page_locked(COPY_BYTES)
        move(chunk, address_of(slot))
        return slot[: len(chunk)], slot

    def _pin(self, home: Mapping, at: int) -> bool:
        """Whether the range around `at` is page-locked, which it is from now on if that can be done."""
        start = at // PIN_BYTES * PIN_BYTES
        if self._can_pin and (id(home), start) not in self._pinned:
            try:
                self._copier.pin(home, start, min(PIN_BYTES, home.bytes - start))
            except OSError as error:
                self._can_pin = False
                log.warning("shared memory cannot be page-locked, so copies go through a staging ring", why=str(error))
            else:
                self._pinned[id(home), start] = home
        return (id(home), start) in self._pinned

    def _check(self, index: int, offset: int, chunk: memoryview) -> None:
        """Hashes what crossed a network; a wrong unit is refused with its last chunk."""
        unit = self._manifest.units[index]
        if not offset:
            self._hash = blake3()
        self._hash.update(chunk)
        if offset + len(chunk) == unit.bytes and self._hash.hexdigest() != unit.hash:
            error = CorruptUnit(self._manifest.digest, unit.name, "what came does not have its hash")
            raise DataLoss(str(error), reason=CORRUPT_UNIT) from error


@asynccontextmanager
async def copying(copies: Copies) -> AsyncIterator[Callable[[Piece], Awaitable[None]]]:
    """A thread, and what hands it a piece. Leaving waits until all are copied; a failure ends the block."""
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, thread_name_prefix="copies")
    runs: deque[asyncio.Future[None]] = deque()
    failure: asyncio.Future[None] = loop.create_future()

    def note(run: asyncio.Future[None]) -> None:
        if not run.cancelled() and (error := run.exception()) and not failure.done():
            failure.set_exception(error)

    async def put(piece: Piece) -> None:
        copies.coming(1)
        runs.append(loop.run_in_executor(thread, copies.run, piece, partial(_tell, loop, piece.taken)))
        runs[-1].add_done_callback(note)
        if len(runs) > QUEUED:
            await runs.popleft()

    try:
        async with ending_with(failure):
            yield put
            while runs:
                await runs.popleft()
            await loop.run_in_executor(thread, copies.land)
    finally:
        copies.stop()
        await ended([*runs, loop.run_in_executor(thread, copies.close)])
        thread.shutdown(wait=False)
        failure.cancel()


def _tell(loop: asyncio.AbstractEventLoop, taken: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(taken)


def _chunks(piece: Piece) -> Iterator[tuple[int, int]]:
    """Ranges of a piece's data, cut where its home is cut when it is page-locked: no copy crosses a border."""
    start, size = 0, len(piece.data)
    while start < size:
        end = min(size, start + COPY_BYTES - (piece.start + start) % COPY_BYTES)
        yield start, end
        start = end
