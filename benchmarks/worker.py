"""A worker's loader without the worker, for processes that measure what stands behind it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mesh.checkpoint.layout import Manifest
from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.requests import LoadProgress
from services.worker.loading.configured import configured
from services.worker.loading.host import Host
from services.worker.loading.loader import Loader
from services.worker.loading.skeletons import Skeletons
from services.worker.settings import WorkerSettings


class Unobserved:
    """Nobody wants to know how the load goes."""

    def manifest(self, manifest: Manifest) -> None:
        """Its size is fine."""

    def progress(self, progress: LoadProgress) -> None:
        """Not shown."""


@asynccontextmanager
async def loader(settings: WorkerSettings) -> AsyncIterator[Loader]:
    """Onto the host device."""
    channels = Channels()
    stores = StoreClient(channels)
    host = Host(stores, settings.transport)
    try:
        yield configured(settings, stores, host, Skeletons(settings.skeletons, settings.scratch_dir))
    finally:
        await channels.close()
