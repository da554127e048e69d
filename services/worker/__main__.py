"""python -m services.worker: one process that owns one device."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.facts import Kind, WorkerFacts
from mesh.memory import tune_malloc
from mesh.serve import Ground, Mounted, main, owned
from services.worker.engine.engine import Engine
from services.worker.guides import Guides
from services.worker.loading.adapting import AdapterLoader
from services.worker.loading.ahead import Ahead
from services.worker.loading.configured import configured
from services.worker.loading.devices import TORCH, memory_bytes, open_device
from services.worker.loading.skeletons import Skeletons, preimport
from services.worker.moving.limits import MoveLimits
from services.worker.relay import Relay
from services.worker.replicas import Replicas
from services.worker.report import Report
from services.worker.service import NAME, WorkerServicer
from services.worker.settings import WorkerSettings


@asynccontextmanager
async def build(settings: WorkerSettings, ground: Ground) -> AsyncIterator[Sequence[Mounted]]:
    """The worker, standing on the ground."""
    channels = Channels()
    stores = StoreClient(channels)
    device = open_device(settings.device, stores, settings.transport)
    settings = settings.model_copy(update={"memory_bytes": memory_bytes(settings)})
    await asyncio.to_thread(preimport, settings.preimport)
    relay = Relay(asyncio.get_running_loop())
    engine = Engine(relay.on_steps, threads=settings.threads or None)
    skeletons = Skeletons(settings.skeletons, settings.scratch_dir, TORCH[settings.device])
    loader = configured(settings, stores, device, skeletons)
    adapters = AdapterLoader(stores, device)
    replicas = Replicas(
        engine,
        loader,
        adapters,
        memory_bytes=settings.memory_bytes,
        kv_bytes=settings.kv_bytes,
        weights=settings.weights,
    )
    limits = MoveLimits(
        settings.move_lease_s,
        settings.move_window_bytes,
        settings.move_bytes_s,
        settings.move_precopy,
        settings.host if settings.move_pipe else "",
    )
    relay.begin(engine, Guides(stores, replicas.order_of, settings.scratch_dir), limits)

    def facts() -> WorkerFacts:
        resident, stopping = replicas.facts(), replicas.draining
        sizes = (settings.memory_bytes, settings.kv_bytes, settings.slots)
        return WorkerFacts(device.name, *sizes, resident, stopping=stopping)

    report = Report(ground.membership, facts)
    replicas.on_life, relay.on_load = report.life, report.load
    engine.start()
    report.life()
    servicer = WorkerServicer(ground.me.id, replicas, relay, engine, settings.memory_bytes)
    try:
        async with AsyncExitStack() as owning:
            await owning.enter_async_context(owned(_drain(ground, replicas, relay), ground))
            if settings.ahead:
                ahead = Ahead(ground.state, ground.me.node, stores, skeletons, loader.quiet)
                await owning.enter_async_context(owned(ahead.run(), ground))
            yield [Mounted(NAME, servicer.mount)]
    finally:
        await replicas.close()
        await asyncio.to_thread(engine.close)
        await channels.close()


async def _drain(ground: Ground, replicas: Replicas, relay: Relay) -> None:
    await ground.draining.wait()
    replicas.drain()
    relay.drain()


if __name__ == "__main__":
    tune_malloc()
    main(Kind.WORKER, WorkerSettings, build)
