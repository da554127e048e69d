"""Imports: a directory of this node becomes a checkpoint, in a child process; which directories may be read."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from mesh.checkpoint.errors import CheckpointError
from mesh.checkpoint.importer import import_in_child
from mesh.checkpoint.layout import Manifest
from mesh.checkpoint.progress import ImportProgress as Step
from mesh.errors import InvalidRequest, NotFound
from mesh.requests import ImportProgress
from services.store.catalog import Catalog, Stored
from services.store.faults import as_mesh_error
from services.store.latest import Latest


class Imports:
    """At most `at_once` run together; the others wait for their turn."""

    def __init__(self, catalog: Catalog, roots: Sequence[Path], at_once: int) -> None:
        self._catalog, self._roots = catalog, tuple(roots)
        self._turns = asyncio.Semaphore(at_once)

    async def run(self, source: str) -> AsyncGenerator[ImportProgress | Stored, None]:
        """Progress, then the checkpoint, which is in the catalogue by then. Leaving early ends the child."""
        directory = await self._checked(source)
        latest: Latest[ImportProgress] = Latest()
        async with self._turns:
            child = asyncio.create_task(self._child(directory, latest), name=f"import {source}")
            try:
                async with aclosing(latest.until(child)) as moves:
                    async for progress in moves:
                        yield progress
                manifest = await child
            finally:
                child.cancel()
                await asyncio.gather(child, return_exceptions=True)
        yield await self._catalog.add(manifest)

    async def _child(self, directory: Path, latest: Latest[ImportProgress]) -> Manifest:
        def tell(step: Step) -> None:
            latest.put(ImportProgress(step.phase, step.bytes_done, step.bytes_total))

        try:
            return await import_in_child(directory, self._catalog.root, tell)
        except CheckpointError as error:
            raise as_mesh_error(error) from error

    async def _checked(self, source: str) -> Path:
        """The directory, links resolved. Raises InvalidRequest or NotFound."""
        if "\0" in source or not Path(source).is_absolute():
            raise InvalidRequest.field("source", "must be the absolute path of a Hugging Face directory")
        directory = await asyncio.to_thread(Path(source).resolve)
        if self._roots and not any(directory.is_relative_to(root.resolve()) for root in self._roots):
            allowed = ", ".join(map(str, self._roots))
            raise InvalidRequest.field(
                "source", f"must lie below one of the store's source roots: {allowed}", reason="SOURCE_NOT_ALLOWED"
            )
        if not await asyncio.to_thread(directory.is_dir):
            raise NotFound(f"the store's node has no directory {source}", reason="SOURCE_NOT_FOUND")
        return directory
