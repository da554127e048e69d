"""The store's process."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from mesh.checkpoint.origins import open_origin
from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.clock import MonotonicClock
from mesh.facts import Kind
from mesh.memory import tune_malloc
from mesh.serve import Ground, Mounted, main, owned
from mesh.state.mirror import Mirror
from services.store import report
from services.store.activity import Activity
from services.store.catalog import Catalog
from services.store.descriptors import raise_limit
from services.store.fetch import Fetcher
from services.store.handover import Handover
from services.store.imports import Imports
from services.store.learn import Learner
from services.store.loads import Loads
from services.store.origins import Origins
from services.store.peers import Peers
from services.store.pins import Pins
from services.store.pipeline import Pipeline
from services.store.quarantine import Quarantine
from services.store.rates import Rates
from services.store.reads import Reads
from services.store.room import Room
from services.store.scrub import Scrub
from services.store.segments import check_kernel, huge_pages
from services.store.service import NAME, StoreServicer
from services.store.settings import StoreSettings, Verify
from services.store.slots import Slots
from services.store.sources import Sources
from services.store.suppliers import Threads
from services.store.tiers import DramPool

log = structlog.get_logger()
FETCH_THREADS = 16  # they hash and write what arrives, or wait for an origin


@asynccontextmanager
async def build(settings: StoreSettings, ground: Ground) -> AsyncIterator[Sequence[Mounted]]:
    """Everything a store is made of, from the disk up."""
    check_kernel()
    raise_limit(settings.dram_bytes, settings.segment_bytes)
    _say_pages(settings)
    pins, clock, activity = Pins(), MonotonicClock(), Activity()

    def changed() -> None:
        report.publish(ground.membership, report.facts(catalog, dram, room, quarantine, origins))

    async with AsyncExitStack() as stack:
        channels = Channels()
        stack.push_async_callback(channels.close)
        mirror = await stack.enter_async_context(Mirror(ground.state).running())
        catalog = Catalog(settings.store_dir, changed)
        dram = DramPool(settings.dram_bytes, settings.segment_bytes, pins, clock, changed)
        peers, origins = Peers(mirror, ground.me.id, StoreClient(channels)), Origins(settings.origins, open_origin)
        quarantine = Quarantine(catalog)
        room = Room(catalog, pins, peers, origins, settings.disk_bytes)
        threads = Threads(FETCH_THREADS)
        stack.callback(threads.close)
        fetcher = Fetcher(
            catalog=catalog,
            dram=dram,
            pins=pins,
            room=room,
            peers=peers,
            origins=origins,
            quarantine=quarantine,
            rates=Rates(clock),
            threads=threads,
            activity=activity,
            clock=clock,
        )
        verify = settings.verify is Verify.ALWAYS
        pipeline = Pipeline(settings.reader_threads, settings.chunk_bytes, verify=verify, activity=activity)
        stack.enter_context(pipeline)
        handover = stack.enter_context(Handover(settings.socket_dir))
        await stack.enter_async_context(catalog)
        await stack.enter_async_context(dram)
        slots = await stack.enter_async_context(Slots(settings.rings, settings.ring_slots, settings.ring_slot_bytes))
        await stack.enter_async_context(owned(dram.enlarge(activity), ground))
        if settings.prefault:
            await stack.enter_async_context(owned(dram.prefault(), ground))
        on_corrupt = quarantine.on_corrupt
        loads = await stack.enter_async_context(Loads(dram, pins, pipeline, on_corrupt=on_corrupt, fetcher=fetcher))
        await stack.enter_async_context(owned(handover.serve(), ground))
        if settings.scrub_period_s:
            scrub = Scrub(catalog, quarantine, activity, fetcher.repair, clock, period_s=settings.scrub_period_s)
            await stack.enter_async_context(owned(scrub.run(), ground))
        sources = Sources(settings.source_roots, settings.source_urls)
        imports = await stack.enter_async_context(Imports(catalog, sources, room, settings.imports))
        servicer = StoreServicer(
            catalog=catalog,
            dram=dram,
            reads=Reads(
                catalog,
                dram,
                pins,
                pipeline,
                on_corrupt=on_corrupt,
                fetcher=fetcher,
                verify_sent=settings.verify is not Verify.IMPORT,
            ),
            loads=loads,
            learner=Learner(catalog, peers, origins),
            room=room,
            imports=imports,
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
        faster = "Linux 6.1 or newer, or: echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled"
        log.info("memory for checkpoints", dram_bytes=settings.dram_bytes, pages="4 KiB", faster=faster)


if __name__ == "__main__":
    tune_malloc()
    main(Kind.STORE, StoreSettings, build)
