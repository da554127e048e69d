"""The nearest source of a checkpoint's bytes: the store's own memory, mapped, or what its answer leaves."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from mesh.checkpoint.layout import total_bytes
from mesh.clients.store import Opening, Stat, StoreClient
from mesh.errors import NoRoom, Unreachable
from mesh.facts import Tier
from mesh.mapping import Mapping
from mesh.requests import LoadProgress
from mesh.segment import map_parts
from services.worker.loading.device import Tell
from services.worker.loading.passing import Passing
from services.worker.loading.piece import Piece, nothing
from services.worker.loading.ways import WAYS, Way, instead
from services.worker.settings import Transport


class Mapped:
    """The parts in the store's memory, mapped. A piece is a unit, and comes when it has been filled, in any order."""

    repeatable = False  # nor need they be: what is damaged on its disk, the store fetches as it fills

    def __init__(self, opening: Opening, mappings: list[Mapping], stat: Stat, tier: Tier) -> None:
        self.mappings, self.tier = mappings, tier
        self._opening, self._units = opening, stat.manifest.units
        self._total_bytes = total_bytes(stat.manifest)

    @asynccontextmanager
    async def pieces(self, tell: Tell) -> AsyncIterator[AsyncIterator[Piece]]:
        """See Source."""
        async with aclosing(self._arriving(tell)) as pieces:
            yield pieces

    async def _arriving(self, tell: Tell) -> AsyncGenerator[Piece, None]:
        async with aclosing(self._opening.arrivals()) as arrivals:
            async for event in arrivals:
                if isinstance(event, LoadProgress):
                    tell(event)
                    continue
                for index in event.units:
                    unit = self._units[index]
                    home = self.mappings[unit.part]
                    data = home.view[unit.offset : unit.offset + unit.bytes]
                    yield Piece(index, 0, data, home, unit.offset, nothing)
        tell(LoadProgress(self.tier, self._total_bytes, self._total_bytes))


class Supply:
    """Opens sources. `writable` mappings are private ones: see mesh.segment."""

    def __init__(self, stores: StoreClient, transport: Transport, *, writable: bool) -> None:
        self._stores, self._writable = stores, writable
        self._first, self._last = WAYS[transport]

    @asynccontextmanager
    async def open(self, address: str, stat: Stat) -> AsyncIterator[Mapped | Passing]:
        """The source. What is mapped is let go of when the context closes; only then may the store fill it anew.

        Raises NotFound, NoRoom, Unreachable, DataLoss, Broken.
        """
        async with AsyncExitStack() as stack:
            yield await self._nearest(stack, address, stat)

    async def _nearest(self, stack: AsyncExitStack, address: str, stat: Stat) -> Mapped | Passing:
        way = self._first
        if way is Way.MAPPED:
            try:
                return await stack.enter_async_context(self._mapped(address, stat))
            except (NoRoom, Unreachable) as error:
                way = instead(error, self._last)
        return Passing(self._stores, address, stat, way, self._last)

    @asynccontextmanager
    async def _mapped(self, address: str, stat: Stat) -> AsyncIterator[Mapped]:
        sizes = [part.bytes for part in stat.manifest.parts]
        async with self._stores.open(address, stat.manifest.digest) as opening:
            opened = await opening.opened()
            mappings = await map_parts(opened.shared_memory, sizes, writable=self._writable)
            try:
                yield Mapped(opening, mappings, stat, opened.tier)
            finally:
                for mapping in mappings:
                    mapping.release()
