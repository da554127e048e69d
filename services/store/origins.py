"""Native origins: places that hold checkpoints as a store lays them out, <url>/<digest>/manifest.json and so on."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass

import structlog

from mesh.checkpoint.errors import CheckpointError, NotACheckpoint
from mesh.checkpoint.layout import Manifest
from mesh.checkpoint.origin import Origin
from mesh.checkpoint.verify import MANIFEST
from mesh.errors import MeshError, Unreachable
from mesh.opening import opened
from services.store.faults import as_mesh_error
from services.store.presence import JOURNAL

log = structlog.get_logger()
LOOK_S = 30.0
RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Looked:
    """The origins that have a checkpoint, and what kept us from asking others."""

    origins: Sequence[Origin] = ()
    failures: Sequence[MeshError] = ()


class Origins:
    """The configured ones. `opener` opens an address; see mesh/checkpoint/origins."""

    def __init__(self, urls: Sequence[str], opener: Callable[[str], Origin]) -> None:
        self.urls, self._opener = tuple(urls), opener

    async def holding(self, manifest: Manifest, stack: AsyncExitStack) -> Looked:
        """Those that have every part; `stack` closes them."""
        return await self._look(manifest.digest, lambda origin: _has_parts(origin, manifest), stack)

    async def knowing(self, digest: str, stack: AsyncExitStack) -> Looked:
        """Those that have its manifest; `stack` closes them."""
        return await self._look(digest, lambda origin: True, stack)

    async def has(self, manifest: Manifest) -> bool:
        """Whether any has every part."""
        async with AsyncExitStack() as stack:
            return bool((await self.holding(manifest, stack)).origins)

    async def _look(self, digest: str, suits: Callable[[Origin], bool], stack: AsyncExitStack) -> Looked:
        looks = [self._look_at(f"{url.rstrip('/')}/{digest}", suits, stack) for url in self.urls]
        found: list[Origin] = []
        failures: list[MeshError] = []
        for look in await asyncio.gather(*looks):
            if isinstance(look, MeshError):
                failures.append(look)
            elif look:
                found.append(look)
        return Looked(found, failures)

    async def _look_at(
        self, url: str, suits: Callable[[Origin], bool], stack: AsyncExitStack
    ) -> Origin | MeshError | None:
        def look() -> Origin | None:
            try:
                origin = self._opener(url)
            except NotACheckpoint:
                return None
            with ExitStack() as unsuited:
                unsuited.callback(origin.close)
                if origin.size(MANIFEST) and origin.size(JOURNAL) is None and suits(origin):
                    unsuited.pop_all()
                    return origin
            return None

        try:
            async with asyncio.timeout(LOOK_S):
                origin = await opened(look)
        except TimeoutError:
            return Unreachable(f"origin {url} does not answer", reason="ORIGIN_UNREACHABLE", retry_after_s=RETRY_S)
        except CheckpointError as error:
            log.warning("an origin cannot be asked", origin=url, error=str(error))
            return as_mesh_error(error)
        if origin:
            stack.push_async_callback(asyncio.to_thread, origin.close)
        return origin


def _has_parts(origin: Origin, manifest: Manifest) -> bool:
    return all(origin.size(part.file) == part.bytes for part in manifest.parts)
