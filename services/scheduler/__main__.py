"""python -m services.scheduler: one process that decides, or stands by for the one that does."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from whimbrel.scheduler.v1.scheduler_pb2_grpc import add_SchedulerServiceServicer_to_server

from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.clients.worker import WorkerClient
from mesh.clock import MonotonicClock
from mesh.facts import Kind
from mesh.serve import Ground, Mounted, main, owned
from mesh.state.leadership import Leadership
from mesh.state.mirror import Mirror
from services.scheduler.loop import Scheduler
from services.scheduler.service import SchedulerServicer
from services.scheduler.settings import SchedulerSettings
from services.scheduler.waiting import drains


@asynccontextmanager
async def build(settings: SchedulerSettings, ground: Ground) -> AsyncIterator[Sequence[Mounted]]:
    """The scheduler, standing on the ground."""
    channels = Channels()
    async with Mirror(ground.state).running() as mirror:
        leadership = Leadership(ground.state, mirror, ground.me.id, ground.me.address, settings.lease_s)
        workers, stores = WorkerClient(channels), StoreClient(channels)
        scheduler = Scheduler(mirror, workers, stores, settings.knobs(), MonotonicClock())
        async with owned(leadership.run(scheduler.lead), ground), owned(_end_streams(ground, scheduler), ground):
            servicer = SchedulerServicer(scheduler)
            yield [
                Mounted(
                    "whimbrel.scheduler.v1.SchedulerService",
                    partial(add_SchedulerServiceServicer_to_server, servicer),
                )
            ]
    await channels.close()


async def _end_streams(ground: Ground, scheduler: Scheduler) -> None:
    """Assign streams stay open as long as their requests run; at shutdown they must not hold the server."""
    await ground.draining.wait()
    scheduler.room.close(drains)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main(Kind.SCHEDULER, SchedulerSettings, build)
