"""One fetch: its units, in order, shared out among its sources. Each source has a few lanes, and each lane takes what
is next; what a source does not bring goes back, and another one takes it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

import structlog

from mesh.checkpoint.errors import CheckpointError, CorruptUnit, StorageFailed
from mesh.clock import Clock
from mesh.errors import DataLoss, MeshError
from services.store.board import Board
from services.store.catalog import Stored
from services.store.faults import as_mesh_error
from services.store.landing import Landing
from services.store.memory import PartMemory
from services.store.rates import Rates, worth_asking
from services.store.suppliers import Source

log = structlog.get_logger()


class Job:
    """Run it once. Afterwards `missing` is what nobody brought, and `failures` say why."""

    def __init__(
        self,
        stored: Stored,
        units: Sequence[int],
        files: Sequence[int] | None,
        memory: Sequence[PartMemory] | None,
        arrived: Callable[[int], None],
        *,
        urgent: bool,
        board: Board,
        rates: Rates,
        clock: Clock,
        changed: Callable[[], None],
        damaged: Callable[[], None],
    ) -> None:
        """`files` are descriptors of the parts, None to leave the disk alone; `memory`, one a part, None likewise."""
        self._stored, self._files, self._memory, self._arrived = stored, files, memory, arrived
        self._urgent, self._board, self._rates, self._clock = urgent, board, rates, clock
        self._changed, self._damaged = changed, damaged
        self._order = {unit: place for place, unit in enumerate(units)}
        self._todo = dict.fromkeys(self._order)  # in order
        self._todo_bytes = stored.presence.extent(self._todo)
        self._sources: list[Source] = []
        self._dead: set[str] = set()
        self._reading = 0  # lanes at work, and looks for further sources: both may bring something to do
        self._landed: list[int] = []  # on disk, not yet in the journal
        self._naming: asyncio.Task[None] | None = None
        self.failures: list[MeshError] = []

    @property
    def missing(self) -> tuple[int, ...]:
        """Units that have not come."""
        return tuple(self._todo)

    async def run(self, near: Sequence[Source], far: Callable[[], Awaitable[Sequence[Source]]]) -> None:
        """Until all has come or nobody is left to ask. Raises what the disk says; what sources say is kept."""
        try:
            async with asyncio.TaskGroup() as group:
                self._reading += 1
                self._enlist(near, group)
                group.create_task(self._look(far, group))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            try:
                await asyncio.shield(self._name_landed())
            finally:
                self._ground(self._landed)

    async def _look(self, far: Callable[[], Awaitable[Sequence[Source]]], group: asyncio.TaskGroup) -> None:
        try:
            self._enlist(await far(), group)
        finally:
            self._reading -= 1
            self._board.tell()

    def _enlist(self, sources: Sequence[Source], group: asyncio.TaskGroup) -> None:
        for source in sources:
            self._rates.meet(source.name, source.prior_bytes_per_s)
            self._sources.append(source)
            for lane in range(source.lanes):
                group.create_task(self._lane(source), name=f"fetch from {source.name}, lane {lane}")

    async def _lane(self, source: Source) -> None:
        while units := await self._take(source):
            await self._read(source, units)

    async def _read(self, source: Source, units: Sequence[int]) -> None:
        landings = [self._landing(unit) for unit in units]
        began_s, done = self._clock.now(), list[Landing]()
        self._reading += 1

        def landed(landing: Landing) -> None:
            done.append(landing)
            self._land(landing.index)

        try:
            await source.read(landings, landed)
            if done:
                count = sum(landing.unit.bytes for landing in done)
                self._rates.delivered(source.name, count * source.lanes, self._clock.now() - began_s)
        except StorageFailed:
            raise
        except (MeshError, CheckpointError) as error:
            await self._failed(source, landings[len(done)], error)
        finally:
            for landing in landings:
                landing.stop()
            self._reading -= 1
            self._give_back([landing.index for landing in landings[len(done) :]])

    async def _failed(self, source: Source, landing: Landing, error: MeshError | CheckpointError) -> None:
        """Wrong bytes cost a source our trust and that unit; anything else, the rest of this fetch."""
        log.warning("a source failed", source=source.name, unit=landing.unit.name, error=str(error))
        self.failures.append(as_mesh_error(error) if isinstance(error, CheckpointError) else error)
        if isinstance(error, CorruptUnit):
            self._damaged()
            self._rates.distrust(source.name)
            await source.wrong(landing.index)
        elif isinstance(error, DataLoss):  # it knows itself
            await source.wrong(landing.index)
        else:
            self._dead.add(source.name)
            self._rates.failed(source.name)

    async def _take(self, source: Source) -> Sequence[int]:
        """What this source should read next; nothing when it is not needed any more."""
        while source.name not in self._dead:
            if not self._board.holds_back(urgent=self._urgent):
                if units := self._pick(source):
                    return units
                if not self._reading and not self._coming_otherwise():
                    return self._pick(source, even_if_slow=True)  # or nobody would take it
            await self._board.change()
        return ()

    def _pick(self, source: Source, *, even_if_slow: bool = False) -> list[int]:
        units: list[int] = []
        count = 0
        for unit in self._free():
            extent = self._stored.presence.extent((unit,))
            if source.offers(unit) and (even_if_slow or self._should(source, unit, extent)):
                count += extent
                if units and count > source.batch_bytes:
                    break
                units.append(unit)
        for unit in units:
            self._set_off(unit)
        return units

    def _free(self) -> list[int]:
        """Units that nobody is bringing, in order; what has come by another fetch is struck off on the way."""
        free: list[int] = []
        for unit in list(self._todo):
            if (self._stored.manifest.digest, unit) in self._board.flying:
                continue
            if self._memory is None and unit in self._stored.units_on_disk:
                self._strike(unit)
                self._arrived(unit)
            else:
                free.append(unit)
        return free

    def _should(self, source: Source, unit: int, extent: int) -> bool:
        """Whether this source is the one to ask: no nearer one has it, and no better one would be done before."""
        if source.local:
            return True
        others = [o for o in self._sources if o is not source and o.name not in self._dead and o.offers(unit)]
        if any(other.local for other in others):
            return False
        welcome = [other for other in others if self._rates.welcome(other.name)]
        if not self._rates.welcome(source.name):
            return not welcome
        best = max((self._rates.bytes_per_s(other.name) for other in welcome), default=0.0)
        return worth_asking(extent, self._rates.bytes_per_s(source.name), self._todo_bytes, best)

    def _coming_otherwise(self) -> bool:
        """Whether another fetch is bringing some of our units."""
        return any((self._stored.manifest.digest, unit) in self._board.flying for unit in self._todo)

    def _landing(self, unit: int) -> Landing:
        part = self._stored.manifest.units[unit].part
        here = unit in self._stored.units_on_disk
        return Landing(
            self._stored.manifest,
            unit,
            self._stored.presence.extent((unit,)),
            None if here or self._files is None else self._files[part],
            None if self._memory is None else self._memory[part],
        )

    def _set_off(self, unit: int) -> None:
        self._strike(unit)
        self._board.flying.add((self._stored.manifest.digest, unit))

    def _strike(self, unit: int) -> None:
        del self._todo[unit]
        self._todo_bytes -= self._stored.presence.extent((unit,))

    def _give_back(self, units: Collection[int]) -> None:
        if units:
            self._todo = dict.fromkeys(sorted({*self._todo, *units}, key=self._order.__getitem__))
            self._todo_bytes += self._stored.presence.extent(units)
        self._ground(units)

    def _ground(self, units: Collection[int]) -> None:
        self._board.flying.difference_update((self._stored.manifest.digest, unit) for unit in units)
        self._board.tell()

    def _land(self, unit: int) -> None:
        self._arrived(unit)
        if self._files is None or unit in self._stored.units_on_disk:
            self._ground((unit,))
            return
        self._landed.append(unit)
        if self._naming and self._naming.done():
            self._naming.result()  # the disk said no
        if self._naming is None or self._naming.done():
            self._naming = asyncio.create_task(self._name_landed(), name="units journal")

    async def _name_landed(self) -> None:
        """Journals what has landed: one at a time, each takes all there is by then."""
        if self._naming and self._naming is not asyncio.current_task():
            await self._naming
        while self._landed:
            units, self._landed = self._landed, []
            try:
                await asyncio.to_thread(self._stored.presence.gain, units)
            finally:
                self._ground(units)
            self._changed()
