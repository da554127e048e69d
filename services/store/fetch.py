"""Missing units, from whoever has them: other checkpoints of this disk, other stores, origins; whichever is faster.
Every byte is hashed on arrival, and written to this node's disk, and into memory when that waits for it.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager

import structlog

from mesh.checkpoint.errors import CheckpointError
from mesh.clock import Clock
from mesh.errors import DataLoss, MeshError, NoRoom, Unreachable, Unsuitable
from services.store.activity import Activity
from services.store.board import Board
from services.store.catalog import Catalog, Stored
from services.store.faults import ORIGIN_REFUSED, as_mesh_error
from services.store.job import Job
from services.store.memory import PartMemory
from services.store.origins import Origins
from services.store.peers import Peers
from services.store.pins import Pins
from services.store.quarantine import Quarantine
from services.store.rates import Rates
from services.store.room import Room
from services.store.suppliers import DiskSource, MemorySource, OriginSource, Source, Threads
from services.store.tiers import DramPool

log = structlog.get_logger()
RETRY_S = 2.0


class Fetcher:
    """Any number of fetches at once. Urgent ones, which somebody waits for, go before the others."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        dram: DramPool,
        pins: Pins,
        room: Room,
        peers: Peers,
        origins: Origins,
        quarantine: Quarantine,
        rates: Rates,
        threads: Threads,
        activity: Activity,
        clock: Clock,
    ) -> None:
        self._catalog, self._dram, self._pins, self._room = catalog, dram, pins, room
        self._peers, self._origins, self._quarantine = peers, origins, quarantine
        self._rates, self._threads, self._activity, self._clock = rates, threads, activity, clock
        self._board = Board()

    async def fetch(
        self,
        stored: Stored,
        units: Sequence[int],
        views: Sequence[PartMemory] | None,
        arrived: Callable[[int], None],
        *,
        urgent: bool,
    ) -> None:
        """Brings `units` to this node's disk, and into `views`, one a part; `arrived(unit)` on the loop as they come.

        When it returns, they are on the disk for good; only with `views` they may have no room there, and stay in
        memory. Raises DataLoss when nobody has them, Unreachable when somebody may, Unsuitable when we
        may not read what has them, NoRoom, Conflict.
        """
        digest = stored.manifest.digest
        with self._pins.hold(digest), self._activity.busy(), self._board.fetching(urgent=urgent):
            await asyncio.to_thread(stored.presence.settle)  # evictions that began before we held it
            try:
                async with AsyncExitStack() as stack:
                    kept = await self._room_for(stored, units, needed=views is None, stack=stack)
                    with _files(stored, wanted=kept) as files:
                        job = self._job(stored, units, files, views, arrived, urgent=urgent)
                        await job.run(await self._near(stored, units), lambda: self._far(stored, job, stack))
            except CheckpointError as error:
                raise as_mesh_error(error) from error
        if job.missing:
            raise _nobody(stored, job.missing, job.failures)

    async def repair(self, stored: Stored, unit: int) -> None:
        """Brings one unit that was quarantined, behind what somebody waits for. Raises as `fetch` does."""
        await self.fetch(stored, (unit,), None, lambda _: None, urgent=False)

    def _job(
        self,
        stored: Stored,
        units: Sequence[int],
        files: Sequence[int] | None,
        views: Sequence[PartMemory] | None,
        arrived: Callable[[int], None],
        *,
        urgent: bool,
    ) -> Job:
        return Job(
            stored,
            units,
            files,
            views,
            arrived,
            urgent=urgent,
            board=self._board,
            rates=self._rates,
            clock=self._clock,
            changed=self._catalog.changed,
            damaged=self._quarantine.count_one,
        )

    async def _room_for(self, stored: Stored, units: Sequence[int], *, needed: bool, stack: AsyncExitStack) -> bool:
        """Whether they may be written to the disk. Raises NoRoom when they may not and are `needed` there."""

        def outstanding() -> int:
            return stored.presence.extent(frozenset(units) - stored.units_on_disk)

        try:
            await stack.enter_async_context(self._room.reserved(outstanding))
        except NoRoom as error:
            if needed:
                raise
            log.warning(
                "no room on disk, so units go to memory alone", digest=stored.manifest.digest, why=error.message
            )
            return False
        return True

    async def _near(self, stored: Stored, units: Sequence[int]) -> list[Source]:
        twins = await asyncio.to_thread(twins_of, stored, units, self._catalog.all())
        return [
            MemorySource(stored, self._dram, self._pins, self._threads),
            DiskSource(twins, stored, self._pins, self._threads, self._quarantine.on_corrupt),
            *self._peers.sources(stored.manifest.digest, self._threads),
        ]

    async def _far(self, stored: Stored, job: Job, stack: AsyncExitStack) -> Sequence[Source]:
        looked = await self._origins.holding(stored.manifest, stack)
        job.failures.extend(looked.failures)
        return [OriginSource(origin, stored.manifest, self._threads) for origin in looked.origins]


def twins_of(stored: Stored, units: Sequence[int], others: Sequence[Stored]) -> dict[int, tuple[Stored, int]]:
    """For each unit, where on this disk another checkpoint has one with the same hash, if any does."""
    wanted = {stored.manifest.units[unit].hash: unit for unit in units}
    found: dict[int, tuple[Stored, int]] = {}
    for other in others:
        if other.manifest.digest == stored.manifest.digest:
            continue
        present = other.units_on_disk
        for index, twin in enumerate(other.manifest.units):
            if twin.hash in wanted and index in present:
                found[wanted[twin.hash]] = (other, index)
    return found


@contextmanager
def _files(stored: Stored, *, wanted: bool) -> Iterator[list[int] | None]:
    """The part files, open for writing."""
    with ExitStack() as stack:
        descriptors: list[int] = []
        for path in stored.part_paths if wanted else ():
            descriptors.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
            stack.callback(os.close, descriptors[-1])
        yield descriptors if wanted else None


def _nobody(stored: Stored, missing: Sequence[int], failures: Sequence[MeshError]) -> MeshError:
    digest, why = stored.manifest.digest, "; ".join(dict.fromkeys(failure.message for failure in failures[-3:]))
    lack = f"{len(missing)} units of checkpoint {digest} are not on this node"
    refused = [failure for failure in failures if failure.reason == ORIGIN_REFUSED]
    if any(isinstance(failure, Unreachable | Unsuitable) for failure in failures if failure not in refused):
        return Unreachable(
            f"{lack}, and who has them cannot be reached: {why}", reason="SOURCES_UNREACHABLE", retry_after_s=RETRY_S
        )
    if refused:
        return Unsuitable(f"{lack}, and who has them may not be read: {why}", reason=ORIGIN_REFUSED)
    source = f" from {stored.manifest.source}" if stored.manifest.source else ""
    more = f" ({why})" if why else ""
    return DataLoss(
        f"{lack}, and neither another store nor an origin has them{more}; import it again{source}",
        reason="UNITS_MISSING",
        metadata={"checkpoint": digest},
    )
