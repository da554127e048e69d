"""Imports: a source becomes a checkpoint, in a child process."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

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


class Imports:
    """At most `at_once` run together; the others wait for their turn."""

    def __init__(self, catalog: Catalog, sources: Sources, room: Room, at_once: int) -> None:
        self._catalog, self._sources, self._room = catalog, sources, room
        self._turns = asyncio.Semaphore(at_once)

    async def run(self, source: str, base: Stored | None = None) -> AsyncGenerator[ImportProgress | Stored, None]:
        """Progress, then the checkpoint, which is in the catalogue by then. Leaving early ends the child.

        `base` is what an adapter adapts. Room is made once the size is known; raises NoRoom.
        """
        address = await self._sources.checked(source)
        latest: Latest[ImportProgress] = Latest()
        async with self._turns, AsyncExitStack() as kept:
            child = asyncio.create_task(self._child(address, base, latest), name=f"import {source}")
            try:
                async with aclosing(latest.until(child)) as moves:
                    claim: _Claim | None = None
                    async for progress in moves:
                        if claim is not None:
                            claim.progress = progress
                        elif progress.bytes_total:
                            claim = _Claim(progress)
                            await kept.enter_async_context(self._room.reserved(claim.outstanding, claim.unlisted))
                        yield progress
                stored = await self._catalog.add(await child)
            finally:
                child.cancel()
                await asyncio.gather(child, return_exceptions=True)
        yield stored

    async def _child(self, address: str, base: Stored | None, latest: Latest[ImportProgress]) -> Manifest:
        def tell(step: Step) -> None:
            latest.put(ImportProgress(step.phase, step.bytes_done, step.bytes_total))

        manifest = base.directory / MANIFEST if base else None
        try:
            return await import_in_child(address, self._catalog.root, tell, manifest)
        except CheckpointError as error:
            raise as_mesh_error(error) from error
