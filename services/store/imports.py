"""Imports: a source becomes a checkpoint, in a child process."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Self

from mesh.checkpoint.errors import CheckpointError
from mesh.checkpoint.importer import import_in_child
from mesh.checkpoint.layout import Manifest
from mesh.checkpoint.progress import ImportProgress as Step
from mesh.checkpoint.verify import MANIFEST
from mesh.requests import ImportProgress
from services.store.catalog import Catalog, Stored
from services.store.faults import as_mesh_error
from services.store.latest import Latest
from services.store.room import Room
from services.store.sources import Sources


@dataclass(slots=True)
class _Claim:
    """What an import needs of the disk, going by what it last said."""

    progress: ImportProgress

    def outstanding(self) -> int:
        """Bytes to be written yet."""
        return self.progress.bytes_total - self.progress.bytes_done

    def unlisted(self) -> int:
        """Bytes that are written, and in no checkpoint that the catalogue knows."""
        return self.progress.bytes_done


class _Import:
    """One import under way, and how many wait for it."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Stored]
        self.latest: Latest[ImportProgress] = Latest()
        self.waiting = 0


class Imports:
    """At most `at_once` run together; the others wait for their turn. One import a source and base: whoever asks for
    it meanwhile joins it. Owns their tasks. Use as an async context manager: leaving it ends them."""

    def __init__(self, catalog: Catalog, sources: Sources, room: Room, at_once: int) -> None:
        self._catalog, self._sources, self._room = catalog, sources, room
        self._turns = asyncio.Semaphore(at_once)
        self._imports: dict[tuple[str, str], _Import] = {}
        self._tasks: set[asyncio.Task[Stored]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def run(self, source: str, base: Stored | None = None) -> AsyncGenerator[ImportProgress | Stored, None]:
        """Progress, then the checkpoint, which is in the catalogue by then. Its child ends with the last who waits.

        `base` is what an adapter adapts. Room is made once the size is known; raises NoRoom.
        """
        address = await self._sources.checked(source)
        async with self._joined(address, base) as joined:
            async with aclosing(joined.latest.until(joined.task)) as moves:
                async for progress in moves:
                    yield progress
            stored = await asyncio.shield(joined.task)
        yield stored

    @asynccontextmanager
    async def _joined(self, address: str, base: Stored | None) -> AsyncIterator[_Import]:
        key = address, base.manifest.digest if base else ""
        joined = self._imports.get(key) or self._start(key, address, base)
        joined.waiting += 1
        try:
            yield joined
        finally:
            joined.waiting -= 1
            if not joined.waiting and not joined.task.done():
                self._forget(key, joined)
                joined.task.cancel()
                await asyncio.gather(joined.task, return_exceptions=True)

    def _start(self, key: tuple[str, str], address: str, base: Stored | None) -> _Import:
        begun = _Import()
        begun.task = asyncio.create_task(self._import(address, base, begun.latest), name=f"import {address}")
        self._imports[key] = begun
        self._tasks.add(begun.task)
        begun.task.add_done_callback(lambda task: self._ended(key, begun, task))
        return begun

    def _ended(self, key: tuple[str, str], ended: _Import, task: asyncio.Task[Stored]) -> None:
        self._forget(key, ended)
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # everybody who waited has heard of it, or has left

    def _forget(self, key: tuple[str, str], old: _Import) -> None:
        """Who asks from now on begins anew."""
        if self._imports.get(key) is old:
            del self._imports[key]

    async def _import(self, address: str, base: Stored | None, latest: Latest[ImportProgress]) -> Stored:
        async with self._turns, AsyncExitStack() as kept:
            child = asyncio.create_task(self._child(address, base, latest), name=f"importer of {address}")
            try:
                async with aclosing(latest.until(child)) as moves:
                    claim: _Claim | None = None
                    async for progress in moves:
                        if claim is not None:
                            claim.progress = progress
                        elif progress.bytes_total:
                            claim = _Claim(progress)
                            await kept.enter_async_context(self._room.reserved(claim.outstanding, claim.unlisted))
                return await self._catalog.add(await child)
            finally:
                child.cancel()
                await asyncio.gather(child, return_exceptions=True)

    async def _child(self, address: str, base: Stored | None, latest: Latest[ImportProgress]) -> Manifest:
        def tell(step: Step) -> None:
            latest.put(ImportProgress(step.phase, step.bytes_done, step.bytes_total))

        manifest = base.directory / MANIFEST if base else None
        try:
            return await import_in_child(address, self._catalog.root, tell, manifest)
        except CheckpointError as error:
            raise as_mesh_error(error) from error
