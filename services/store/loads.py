"""A checkpoint is in DRAM for as long as somebody has it open. One load a checkpoint: whoever asks joins it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from mesh.checkpoint.errors import CorruptUnit
from mesh.errors import DataLoss
from mesh.facts import Tier
from services.store.catalog import Catalog, Stored
from services.store.latest import Latest
from services.store.pins import Pins
from services.store.pipeline import Pipeline
from services.store.tiers import DramPool, Resident


class _Load:
    """One load under way, and how many wait for it."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Resident]
        self.waiting = 0
        self.bytes_done: Latest[int] = Latest()


class Opening:
    """A checkpoint being opened. `tier` is where its bytes were when asked for."""

    def __init__(self, tier: Tier, task: asyncio.Future[Resident], bytes_done: Latest[int]) -> None:
        self.tier, self._task, self._bytes_done = tier, task, bytes_done

    def progress(self) -> AsyncGenerator[int, None]:
        """Bytes read so far, whenever that has changed, until nothing is left to read."""
        return self._bytes_done.until(self._task)

    async def resident(self) -> Resident:
        """The memory, filled. Raises what made the load fail: NoRoom, DataLoss."""
        return await asyncio.shield(self._task)


class Loads:
    """Owns the tasks that load. Use as an async context manager: leaving it stops them."""

    def __init__(self, catalog: Catalog, dram: DramPool, pins: Pins, pipeline: Pipeline) -> None:
        self._catalog, self._dram, self._pins, self._pipeline = catalog, dram, pins, pipeline
        self._loads: dict[str, _Load] = {}
        self._tasks: set[asyncio.Task[Resident]] = set()
        self._ending: set[asyncio.Task[Resident]] = set()  # cancelled; they let go of their memory within a chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def open(self, stored: Stored) -> AsyncIterator[Opening]:
        """Pins the checkpoint while the context is open. A load that nobody waits for any more is cancelled."""
        digest = stored.manifest.digest
        with self._pins.hold(digest):
            if resident := self._dram.get(digest):
                yield Opening(Tier.DRAM, _done(resident), Latest())
            else:
                load = self._join(stored)
                try:
                    yield Opening(Tier.DISK, load.task, load.bytes_done)
                finally:
                    self._leave(digest, load)
            self._dram.get(digest)  # it was in use until now

    def _join(self, stored: Stored) -> _Load:
        digest = stored.manifest.digest
        load = self._loads.get(digest)
        if load is None:
            load = self._loads[digest] = _Load()
            load.task = asyncio.create_task(self._run(stored, load), name=f"load {digest}")
            self._tasks.add(load.task)
            load.task.add_done_callback(lambda task: self._ended(digest, load, task))
        load.waiting += 1
        return load

    def _leave(self, digest: str, load: _Load) -> None:
        load.waiting -= 1
        if not load.waiting and not load.task.done():
            self._forget(digest, load)
            self._ending.add(load.task)
            load.task.cancel()

    def _ended(self, digest: str, load: _Load, task: asyncio.Task[Resident]) -> None:
        self._forget(digest, load)
        self._tasks.discard(task)
        self._ending.discard(task)
        if not task.cancelled():
            task.exception()  # every opener has heard of it, or has left

    def _forget(self, digest: str, load: _Load) -> None:
        """Openers from now on begin anew."""
        if self._loads.get(digest) is load:
            del self._loads[digest]

    async def _run(self, stored: Stored, load: _Load) -> Resident:
        manifest = stored.manifest
        if self._ending:
            await asyncio.wait(self._ending)
        resident = await self._dram.reserve(manifest.digest, [part.bytes for part in manifest.parts])
        try:
            views = [segment.view for segment in resident.segments]
            await self._pipeline.fill(manifest, stored.part_paths, views, load.bytes_done.put)
        except CorruptUnit as error:
            self._dram.abandon(resident)
            await self._catalog.quarantine(manifest.digest, str(error))
            raise DataLoss(str(error), reason="CORRUPT_UNIT") from error
        except OSError as error:
            self._dram.abandon(resident)
            raise DataLoss(f"{stored.directory} cannot be read: {error}", reason="UNREADABLE") from error
        except BaseException:
            self._dram.abandon(resident)
            raise
        self._dram.admit(resident)
        return resident


def _done(resident: Resident) -> asyncio.Future[Resident]:
    future: asyncio.Future[Resident] = asyncio.get_running_loop().create_future()
    future.set_result(resident)
    return future
