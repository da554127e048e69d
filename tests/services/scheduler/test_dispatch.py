"""How long the scheduler takes over a warm request, as it counts that itself."""

import asyncio

from prometheus_client import REGISTRY

from mesh.requests import Phase
from tests.services.scheduler.conftest import Bench


def counted() -> float:
    """Requests that found a place at the first look."""
    return REGISTRY.get_sample_value("whimbrel_dispatch_seconds_count") or 0.0


async def test_those_that_find_a_place_at_the_first_look_count_and_those_that_wait_do_not(bench: Bench) -> None:
    await bench.worker(slots=1)
    cold, before = bench.assign(), counted()
    await cold.placed()
    assert counted() == before
    queued = bench.assign()
    await queued.told(lambda progress: progress.phase is Phase.QUEUED)
    reading = asyncio.create_task(queued.placed())
    await cold.close()
    await reading
    assert counted() == before
    await queued.close()
    await bench.idle()
    await bench.assign().placed()
    assert counted() == before + 1
