"""One embedding request, between a scheduler and workers that the test plays."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from mesh.clients.worker import WorkerClient
from mesh.errors import Conflict, Unreachable
from mesh.requests import Pooling
from services.gateway.embedding import GROUP_INPUTS, Embedded, Embeddings, Event, ToEmbed, Vectors
from tests.services.gateway.conftest import Bench
from tests.services.gateway.edges import WAIT_S, placement

INPUTS = tuple((1,) * (1 + index % 7) for index in range(2 * GROUP_INPUTS + 5))


def running(bench: Bench) -> AsyncGenerator[Event, None]:
    """A request for the version d1, under way."""
    asked = ToEmbed("r", "m", "d1", INPUTS, Pooling.MEAN, asyncio.get_running_loop().time())
    return Embeddings(bench.places, WorkerClient(bench.channels), attempts=2).run(asked)


async def all_of(events: AsyncGenerator[Event, None]) -> list[Event]:
    """Everything, in good time."""
    async with asyncio.timeout(WAIT_S), aclosing(events):
        return [event async for event in events]


def vectors_of(events: list[Event]) -> list[float]:
    """In the order of the inputs; fails where one is missing or comes twice."""
    values: list[float] = []
    for event in events:
        if isinstance(event, Vectors):
            assert event.first == len(values)
            values += [value for (value,) in event.values]
    return values


async def test_inputs_go_some_at_a_time_and_come_back_in_order(bench: Bench) -> None:
    scheduler, worker = await bench.scheduler(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", worker.address))
    *events, end = await all_of(running(bench))
    assert vectors_of(events) == [float(len(one)) for one in INPUTS]
    assert [len(request.inputs) for request in worker.embedded] == [GROUP_INPUTS, GROUP_INPUTS, 5]
    assert isinstance(end, Embedded)
    assert end.prompt_tokens == sum(map(len, INPUTS))
    assert scheduler.asked[0].current_only


async def test_a_worker_lost_midway_is_replaced_and_no_input_is_embedded_twice(bench: Bench) -> None:
    scheduler, dying, other = await bench.scheduler(), await bench.worker(), await bench.worker()
    dying.embeds_at_most = 1
    scheduler.answers.put_nowait(placement("w1", dying.address, fence=7))
    scheduler.answers.put_nowait(placement("w2", other.address))
    events = await all_of(running(bench))
    assert vectors_of(events) == [float(len(one)) for one in INPUTS]
    assert [len(request.inputs) for request in other.embedded] == [GROUP_INPUTS, 5]
    assert list(scheduler.asked[1].exclude_fences) == [7]


async def test_it_is_not_tried_for_ever(bench: Bench) -> None:
    scheduler, dying = await bench.scheduler(), await bench.worker()
    dying.embeds_at_most = 0
    for fence in (7, 8):
        scheduler.answers.put_nowait(placement("w1", dying.address, fence=fence))
    with pytest.raises(Unreachable):
        await all_of(running(bench))


async def test_vectors_of_two_versions_never_mix(bench: Bench) -> None:
    scheduler, worker = await bench.scheduler(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", worker.address, digest="d2"))
    with pytest.raises(Conflict, match="send the request again"):
        await all_of(running(bench))
    assert not worker.embedded
