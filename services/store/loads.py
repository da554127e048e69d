"""Loads: a checkpoint's missing units on their way to a tier. One load a checkpoint and tier: whoever asks joins it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Self

from mesh.checkpoint.errors import CorruptUnit
from mesh.errors import DataLoss
from mesh.facts import Tier
from services.store.catalog import Stored
from services.store.corrupt import OnCorrupt, unit_named, unreadable
from services.store.fetching import fetch
from services.store.fill import Tally
from services.store.latest import Latest
from services.store.memory import Fetcher, Place, extents
from services.store.nearest import nearest
from services.store.pins import Pins
from services.store.pipeline import Pipeline
from services.store.resident import Resident
from services.store.tiers import DramPool
from services.store.turns import Urgency


@dataclass(frozen=True, slots=True)
class Step:
    """How far a load has come, and the units that have arrived since the step before."""

    units: tuple[int, ...]
    bytes_done: int


@dataclass(frozen=True, slots=True)
class _Mark:
    """A load at one moment."""

    units: int
    bytes_done: int


class _Load:
    """One load under way, and how many wait for it."""

    def __init__(self, stored: Stored, tier: Tier, *, urgent: bool) -> None:
        self.task: asyncio.Task[None]
        self.memory: asyncio.Future[Resident] = asyncio.get_running_loop().create_future()
        self.tier, self.urgency = tier, Urgency(urgent=urgent)  # tier: the farthest that it loads from
        self.waiting = 0
        self.units: list[int] = []  # as they arrive; those that were there come first
        self.marks: Latest[_Mark] = Latest()
        self._extents = extents(stored.manifest)
        self._total_bytes = stored.summary.bytes
        self._read_bytes = self._fetched_bytes = self._before_bytes = 0

    def begin(self, units: Sequence[int]) -> None:
        """The units that are there already."""
        self._before_bytes = sum(map(self._bytes, units))
        self.units += units
        self._mark()

    def begin_with(self, resident: Resident) -> None:
        """The memory is there, and with it these units."""
        self.begin(sorted(resident.units))
        self.memory.set_result(resident)

    def arrived(self, unit: int) -> None:
        self.units.append(unit)
        self._mark()

    def moved(self, bytes_read: int) -> None:
        self._read_bytes = bytes_read
        self._mark()

    def fetched(self, unit: int) -> int:
        """A unit has arrived from afar; its bytes."""
        self._fetched_bytes += self._bytes(unit)
        self.arrived(unit)
        return self._bytes(unit)

    def _bytes(self, unit: int) -> int:
        start, end = self._extents[unit]
        return end - start

    def _mark(self) -> None:
        done = self._before_bytes + self._read_bytes + self._fetched_bytes  # what was read twice counts once
        self.marks.put(_Mark(len(self.units), min(done, self._total_bytes)))


class Opening:
    """A load, as one who waits for it sees it. `tier` is the farthest that any of the bytes were in when asked for."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self.tier = load.tier

    async def memory(self) -> Resident:
        """The memory, as soon as it is there, filled or not. Raises NoRoom."""
        await asyncio.wait((self._load.memory, self._load.task), return_when=asyncio.FIRST_COMPLETED)
        if not self._load.memory.done():
            await self.complete()
        return self._load.memory.result()

    async def steps(self) -> AsyncGenerator[Step, None]:
        """The units that are there already, then more whenever there are, until the load ends, however it does."""
        seen = 0
        async with aclosing(self._load.marks.until(self._load.task)) as marks:
            async for mark in marks:
                yield Step(tuple(self._load.units[seen : mark.units]), mark.bytes_done)
                seen = mark.units

    async def complete(self) -> None:
        """Returns when every unit is there. Raises what made the load fail: NoRoom, DataLoss, Unreachable."""
        await asyncio.shield(self._load.task)


class Loads:
    """Owns the tasks that load. Use as an async context manager: leaving it stops them."""

    def __init__(
        self,
        dram: DramPool,
        pins: Pins,
        pipeline: Pipeline,
        *,
        on_corrupt: OnCorrupt,
        fetcher: Fetcher | None = None,
    ) -> None:
        self._dram, self._pins, self._pipeline = dram, pins, pipeline
        self._on_corrupt, self._fetcher = on_corrupt, fetcher
        self._fetched_bytes = 0
        self._loads: dict[tuple[str, Tier], _Load] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()  # cancelled; they let go of their memory within a chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def tally(self) -> Tally:
        """The bytes of all loads so far, by where they came from."""
        return self._pipeline.tally + Tally(fetched_bytes=self._fetched_bytes)

    @asynccontextmanager
    async def open(self, stored: Stored) -> AsyncIterator[Opening]:
        """Pins the checkpoint in memory while the context is open. A load that nobody waits for is cancelled."""
        with self._pins.hold(stored.manifest.digest):
            async with self._joined(stored, Tier.DRAM, urgent=True) as opening:
                yield opening
            self._dram.get(stored.manifest.digest)  # it was in use until now

    @asynccontextmanager
    async def prefetch(self, stored: Stored, tier: Tier) -> AsyncIterator[Opening]:
        """Brings it to DISK or DRAM behind all that is urgent; nothing is held there."""
        async with self._joined(stored, tier, urgent=False) as opening:
            yield opening

    @asynccontextmanager
    async def _joined(self, stored: Stored, tier: Tier, *, urgent: bool) -> AsyncIterator[Opening]:
        key = stored.manifest.digest, tier
        load = self._loads.get(key) or self._start(stored, tier, urgent=urgent)
        if urgent:
            load.urgency.promote()
        load.waiting += 1
        try:
            yield Opening(load)
        finally:
            load.waiting -= 1
            if not load.waiting and not load.task.done():
                self._forget(key, load)
                self._ending.add(load.task)
                load.task.cancel()

    def _start(self, stored: Stored, tier: Tier, *, urgent: bool) -> _Load:
        digest = stored.manifest.digest
        load = _Load(stored, self._farthest(stored, tier), urgent=urgent)
        run = self._to_disk(stored, load) if tier is Tier.DISK else self._to_memory(stored, load)
        load.task = asyncio.create_task(run, name=f"load {digest} to {tier}")
        self._loads[digest, tier] = load
        self._tasks.add(load.task)
        load.task.add_done_callback(lambda task: self._ended((digest, tier), load, task))
        return load

    def _farthest(self, stored: Stored, tier: Tier) -> Tier:
        if tier is Tier.DISK:
            return Tier.DISK if len(stored.units_on_disk) == len(stored.manifest.units) else Tier.ORIGIN
        resident = self._dram.get(stored.manifest.digest)
        found = nearest(resident.missing() if resident else range(len(stored.manifest.units)), stored, self._dram)
        for lender in found.lenders:
            self._dram.get(lender)  # a use of it: it is not to leave for the very load that it helps
        return found.farthest

    def _ended(self, key: tuple[str, Tier], load: _Load, task: asyncio.Task[None]) -> None:
        self._forget(key, load)
        self._tasks.discard(task)
        self._ending.discard(task)
        if not task.cancelled():
            task.exception()  # every opener has heard of it, or has left

    def _forget(self, key: tuple[str, Tier], load: _Load) -> None:
        """Openers from now on begin anew."""
        if self._loads.get(key) is load:
            del self._loads[key]

    async def _to_disk(self, stored: Stored, load: _Load) -> None:
        here = stored.units_on_disk
        load.begin(sorted(here))
        absent = [unit for unit in range(len(stored.manifest.units)) if unit not in here]

        def arrived(unit: int) -> None:
            self._fetched_bytes += load.fetched(unit)

        await fetch(self._fetcher, stored, absent, None, arrived=arrived, urgency=load.urgency)

    async def _to_memory(self, stored: Stored, load: _Load) -> None:
        with self._pins.hold(stored.manifest.digest):
            resident = self._dram.get(stored.manifest.digest)
            if resident and resident.whole:
                load.begin_with(resident)
                return
            if self._ending:
                await asyncio.wait(self._ending)
            resident = await self._dram.reserve(stored.manifest)
            try:
                load.begin_with(resident)
                await self._bring(stored, resident, load)
            finally:
                self._dram.settle(resident)

    async def _bring(self, stored: Stored, resident: Resident, load: _Load) -> None:
        """All that is missing, each unit from the nearest place that has it."""
        found = nearest(resident.missing(), stored, self._dram)
        with ExitStack() as lent:
            for lender in found.lenders:
                lent.enter_context(self._pins.hold(lender))
            filling = self._fill(stored, resident, load, [*found.places, *found.on_disk], found.places)
            await _both(filling, self._fetch(stored, resident, load, found.absent))

    async def _fill(
        self, stored: Stored, resident: Resident, load: _Load, units: Sequence[int], places: Mapping[int, Place]
    ) -> None:
        """From memory and disk; what the disk has lost is fetched, where somebody can."""

        def arrived(unit: int) -> None:
            resident.arrived(unit)
            load.arrived(unit)

        if not units:
            return
        try:
            lost = await self._pipeline.fill(
                stored,
                resident,
                units,
                places,
                urgency=load.urgency,
                arrived=arrived,
                moved=load.moved,
                keep_going=self._fetcher is not None,
            )
        except CorruptUnit as error:
            await self._on_corrupt(stored, unit_named(stored, error.unit), str(error))
            raise DataLoss(str(error), reason="CORRUPT_UNIT") from error
        except OSError as error:
            raise unreadable(stored, error) from error
        for unit, why in lost.items():
            await self._on_corrupt(stored, unit, str(why))
        await self._fetch(stored, resident, load, tuple(lost))

    async def _fetch(self, stored: Stored, resident: Resident, load: _Load, units: Sequence[int]) -> None:
        def arrived(unit: int) -> None:
            resident.arrived(unit)
            self._fetched_bytes += load.fetched(unit)

        await fetch(self._fetcher, stored, units, resident.parts, arrived=arrived, urgency=load.urgency)


async def _both(*works: Coroutine[object, object, None]) -> None:
    """Runs them side by side; when one fails or we are cancelled, returns when all have let go."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
