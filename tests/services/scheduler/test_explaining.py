"""Explain, on the wire: what the scheduler that leads says of requests that wait, and of loads that were."""

import asyncio

import pytest

from mesh.clients.channel import Channels
from mesh.clients.scheduler import SchedulerClient
from mesh.errors import InvalidRequest, NotFound, Unreachable
from mesh.explanation import Explanation, Way
from tests.services.scheduler.conftest import WAIT_S, Bench


async def explained(bench: Bench, model: str = "m") -> Explanation:
    """As a gateway asks."""
    channels = Channels()
    try:
        return await SchedulerClient(channels).explain(bench.address, model)
    finally:
        await channels.close()


async def test_a_request_that_waits_for_a_load_is_told_of_with_what_is_left_of_it(bench: Bench) -> None:
    served = await bench.worker()
    served.fake.go.clear()
    assigned = bench.assign()
    reading = asyncio.create_task(assigned.placed())
    async with asyncio.timeout(WAIT_S):
        while not assigned.progress:  # noqa: ASYNC110  the load's progress comes on the stream
            await asyncio.sleep(0.005)
    told = await explained(bench)
    assert told.waiting == 1
    (held,) = told.held
    assert held.why == "it waits for the load on w1"
    (join,) = held.alternatives
    assert (join.way, join.worker_id, join.chosen) == (Way.JOIN, "w1", True)
    assert join.estimate
    assert join.estimate.mean_s > 0
    served.fake.go.set()
    await reading


async def test_what_loads_were_thought_to_take_and_took_is_told(bench: Bench) -> None:
    await bench.worker()
    await bench.assign().placed()
    told = await explained(bench)
    (load,) = told.loads
    assert (load.worker_id, load.digest, load.actual_s) == ("w1", "m@1", 0.0)  # nobody has turned the clock
    assert load.predicted.p90_s > load.predicted.mean_s > 0
    assert (told.next.why, told.held, told.waiting) == ("it takes a slot on w1", (), 0)


async def test_a_model_that_is_not_deployed_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await explained(bench, "dodo")


async def test_a_question_needs_a_model(bench: Bench) -> None:
    with pytest.raises(InvalidRequest):
        await explained(bench, "")


async def test_a_scheduler_that_stands_by_sends_the_question_on(bench: Bench) -> None:
    await bench.resign()
    with pytest.raises(Unreachable) as sent_on:
        await explained(bench)
    assert sent_on.value.reason == "NOT_LEADER"
