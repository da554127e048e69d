"""The store's process."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from mesh.clock import MonotonicClock
from mesh.facts import Kind
from mesh.memory import tune_malloc
from mesh.serve import Ground, Mounted, main, owned
from services.store import report
from services.store.catalog import Catalog
from services.store.corrupt import quarantining
from services.store.descriptors import raise_limit
from services.store.handover import Handover
from services.store.imports import Imports
from services.store.loads import Loads
from services.store.pins import Pins
from services.store.pipeline import Pipeline
from services.store.reads import Reads
from services.store.segments import check_kernel, huge_pages
from services.store.service import NAME, StoreServicer
from services.store.settings import StoreSettings, Verify
from services.store.slots import Slots
from services.store.sources import Sources
from services.store.tiers import DramPool

log = structlog.get_logger()


@asynccontextmanager
async def build(settings: StoreSettings, ground: Ground) -> AsyncIterator[Sequence[Mounted]]:
    """Everything a store is made of, from the disk up."""
    check_kernel()
    raise_limit(settings.dram_bytes, settings.segment_bytes)
    _say_pages(settings)
    pins = Pins()

    def changed() -> None:
        report.publish(ground.membership, catalog, dram)

    catalog = Catalog(settings.store_dir, changed)
    dram = DramPool(settings.dram_bytes, settings.segment_bytes, pins, MonotonicClock(), changed)
    slots = Slots(settings.rings, settings.ring_slots, settings.ring_slot_bytes)
    on_corrupt = quarantining(catalog, dram, pins)
    verify = settings.verify is Verify.ALWAYS
    with (
        Pipeline(settings.reader_threads, settings.chunk_bytes, verify=verify) as pipeline,
        Handover(settings.socket_dir) as handover,
    ):
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(catalog)
            await stack.enter_async_context(dram)
            await stack.enter_async_context(slots)
            if settings.prefault:
                await stack.enter_async_context(owned(dram.prefault(), ground))
            loads = await stack.enter_async_context(Loads(dram, pins, pipeline, on_corrupt=on_corrupt))
            await stack.enter_async_context(owned(handover.serve(), ground))
            servicer = StoreServicer(
                catalog=catalog,
                dram=dram,
                reads=Reads(catalog, dram, pins, pipeline, on_corrupt=on_corrupt),
                loads=loads,
                imports=Imports(catalog, Sources(settings.source_roots, settings.source_urls), settings.imports),
                handover=handover,
                slots=slots,
                draining=ground.draining,
            )
            changed()
            yield [Mounted(NAME, servicer.mount)]


def _say_pages(settings: StoreSettings) -> None:
    if huge_pages():
        log.info("memory for checkpoints", dram_bytes=settings.dram_bytes, pages="2 MiB")
    else:
        faster = "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled"
        log.info("memory for checkpoints", dram_bytes=settings.dram_bytes, pages="4 KiB", faster=faster)


if __name__ == "__main__":
    tune_malloc()
    main(Kind.STORE, StoreSettings, build)
