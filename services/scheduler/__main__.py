"""python -m services.scheduler: one process that decides, or stands by for the one that does."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog

import policy
from mesh.compiled import use

COMPILED = use(policy)  # before any of it is imported

from whimbrel.scheduler.v1.scheduler_pb2_grpc import add_SchedulerServiceServicer_to_server

from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.clients.worker import WorkerClient
from mesh.clock import MonotonicClock
from mesh.facts import Kind
from mesh.garbage import spare_requests
from mesh.serve import Ground, Mounted, main, owned
from mesh.state.leadership import Leadership
from mesh.state.learnt import Notebook
from mesh.state.mirror import Mirror
from mesh.state.reservations import Reservations
from services.scheduler.loop import Scheduler
from services.scheduler.service import SchedulerServicer
from services.scheduler.settings import SchedulerSettings
from services.scheduler.waiting import drains

log = structlog.get_logger()


@asynccontextmanager
async def build(settings: SchedulerSettings, ground: Ground) -> AsyncIterator[Sequence[Mounted]]:
    """The scheduler, standing on the ground."""
    channels = Channels()
    async with Mirror(ground.state).running() as mirror:
        leadership = Leadership(ground.state, mirror, ground.me.id, ground.me.address, settings.leader_lease_s)
        reservations = Reservations(ground.state)
        workers, stores = WorkerClient(channels), StoreClient(channels)
        notebook = Notebook(ground.state)
        scheduler = Scheduler(
            mirror, workers, stores, settings.knobs(), MonotonicClock(), notebook=notebook, reservations=reservations
        )
        async with owned(_lead(ground, leadership, scheduler), ground):
            servicer = SchedulerServicer(scheduler)
            spare_requests()
            log.info("decides when it leads", policy="compiled" if COMPILED else "interpreted")
            yield [
                Mounted(
                    "whimbrel.scheduler.v1.SchedulerService",
                    partial(add_SchedulerServiceServicer_to_server, servicer),
                )
            ]
    await channels.close()


async def _lead(ground: Ground, leadership: Leadership, scheduler: Scheduler) -> None:
    """Bids and leads until shutdown begins; resigns then, so that a standby leads while this process still ends.

    Assign streams stay open as long as their requests run; at shutdown they must not hold the server.
    """
    leading = asyncio.create_task(leadership.run(scheduler.lead))
    told = asyncio.create_task(ground.draining.wait())
    try:
        await asyncio.wait([leading, told], return_when=asyncio.FIRST_COMPLETED)
        if leading.done():
            leading.result()
    finally:
        scheduler.close(drains)
        leading.cancel()
        told.cancel()
        await _ended(leading, told)


async def _ended(*tasks: asyncio.Task[Any]) -> None:
    """Waits for tasks that were told to end; when the caller is told so itself, too, for what they give back."""
    ending = asyncio.ensure_future(asyncio.wait(tasks))
    try:
        await asyncio.shield(ending)
    except asyncio.CancelledError:
        await ending
        raise


if __name__ == "__main__":
    main(Kind.SCHEDULER, SchedulerSettings, build)
