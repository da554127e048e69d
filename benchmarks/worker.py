"""A worker's loader without the worker, for processes that measure what stands behind it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mesh.checkpoint.layout import Manifest
from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.requests import LoadProgress
from services.worker.engine.batch import Limits
from services.worker.engine.host_tier import HostTier
from services.worker.engine.packing import PackBudget
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
    """As services/worker/__main__.py makes it for the host device."""
    channels = Channels()
    stores = StoreClient(channels)
    limits = Limits(settings.max_batch_tokens, settings.slots, settings.draft_tokens)
    skeletons = Skeletons(settings.skeletons, settings.scratch_dir)
    tier, packing = HostTier(settings.host_kv_bytes), PackBudget(settings.packed_bytes)
    host = Host(stores, settings.transport)
    try:
        yield Loader(stores, host, skeletons, settings.kv_bytes, limits, tier=tier, packing=packing)
    finally:
        await channels.close()
