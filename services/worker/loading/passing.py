"""Bytes that pass by: through a ring of the store's memory, which is smaller than the checkpoint, or through gRPC."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial

from mesh.checkpoint.layout import Manifest
from mesh.clients.store import RingReading, Stat, StoreClient
from mesh.errors import NoRoom, Unreachable, Unsuitable
from mesh.mapping import Mapping
from mesh.requests import LoadProgress
from mesh.segment import map_slots
from services.worker.loading.device import Tell
from services.worker.loading.piece import Piece, bad_stream, nothing
from services.worker.loading.ways import Way, instead


class InOrder:
    """Holds a store to what it was asked for: every unit, in order, without a gap."""

    def __init__(self, manifest: Manifest) -> None:
        self._units = manifest.units
        self._unit = self._offset = self.done_bytes = 0
        self.total_bytes = sum(unit.bytes for unit in manifest.units)

    def take(self, unit: int, offset: int, count: int) -> None:
        """Raises DataLoss unless these bytes come next."""
        if self._unit == len(self._units) or (unit, offset) != (self._unit, self._offset):
            raise bad_stream(f"byte {offset} of unit {unit} came instead of byte {self._offset} of {self._unit}")
        if not 0 < count <= self._units[unit].bytes - offset:
            raise bad_stream(f"{count} bytes came where unit {unit} has {self._units[unit].bytes - offset} left")
        self._offset += count
        self.done_bytes += count
        if self._offset == self._units[unit].bytes:
            self._unit, self._offset = self._unit + 1, 0

    def end(self) -> None:
        """Raises DataLoss if something is missing."""
        if self._unit < len(self._units):
            raise bad_stream(f"it ended {self.total_bytes - self.done_bytes} bytes early")


class Passing:
    """A piece is what a slot of the ring, or a message, holds; they come in order. `way` is tried first."""

    repeatable = True

    def __init__(self, stores: StoreClient, address: str, stat: Stat, way: Way, last: Way) -> None:
        self._stores, self._address, self._manifest, self.tier = stores, address, stat.manifest, stat.tier
        self._every = range(len(stat.manifest.units))
        self._way, self._last = way, last

    @asynccontextmanager
    async def pieces(self, tell: Tell) -> AsyncIterator[AsyncIterator[Piece]]:
        """See Source."""
        async with AsyncExitStack() as stack:
            coming = await self._begin(stack)
            yield await stack.enter_async_context(aclosing(self._checked(coming, tell)))

    async def _checked(self, coming: AsyncGenerator[Piece, None], tell: Tell) -> AsyncGenerator[Piece, None]:
        order = InOrder(self._manifest)
        async for piece in coming:
            order.take(piece.unit, piece.offset, len(piece.data))
            yield piece
            tell(LoadProgress(self.tier, order.done_bytes, order.total_bytes))
        order.end()

    async def _begin(self, stack: AsyncExitStack) -> AsyncGenerator[Piece, None]:
        """The pieces by the nearest way there is; it ends with the stack."""
        if self._way is Way.RING:
            try:
                return await self._ring(stack)
            except (NoRoom, Unreachable, Unsuitable) as error:
                if instead(error, self._last) is Way.RING:
                    raise
        return await stack.enter_async_context(aclosing(self._stream()))

    async def _ring(self, stack: AsyncExitStack) -> AsyncGenerator[Piece, None]:
        async with AsyncExitStack() as opening:
            reading = await opening.enter_async_context(
                self._stores.read_through_ring(self._address, self._manifest.digest, self._every)
            )
            slots = await map_slots(await reading.memory())
            for slot in slots:
                opening.callback(slot.release)
            pieces = await opening.enter_async_context(aclosing(_through(reading, slots)))
            await stack.enter_async_context(opening.pop_all())
        return pieces

    async def _stream(self) -> AsyncGenerator[Piece, None]:
        async with aclosing(self._stores.read_units(self._address, self._manifest.digest, self._every)) as chunks:
            async for chunk in chunks:
                yield Piece(chunk.unit, chunk.offset, chunk.data, None, 0, nothing)


async def _through(reading: RingReading, slots: Sequence[Mapping]) -> AsyncGenerator[Piece, None]:
    lent: set[int] = set()

    def free(slot: int) -> None:
        lent.discard(slot)
        reading.free(slot)

    async with aclosing(reading.filled()) as filled:
        async for one in filled:
            if one.slot >= len(slots) or one.slot in lent or one.bytes > slots[one.slot].bytes:
                raise bad_stream(f"{one.bytes} bytes came in slot {one.slot} of {len(slots)}")
            lent.add(one.slot)
            home = slots[one.slot]
            yield Piece(one.unit, one.offset, home.view[: one.bytes], home, 0, partial(free, one.slot))
