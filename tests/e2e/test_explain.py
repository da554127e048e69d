"""Explanations of a real cluster: what a start took beside what it was thought to take, and what would be done next."""

import asyncio

import pytest

from mesh.errors import InvalidRequest, NotFound
from mesh.explanation import Way
from tests.e2e.asking import ask
from tests.e2e.conftest import Running
from tests.e2e.library import BIG

WAIT_S = 60.0


async def test_a_start_is_told_of_with_what_it_was_thought_to_take_and_what_was_learnt(shared: Running) -> None:
    model = await shared.deployed(BIG, "explained", keep_alive_s=600.0)
    before = await shared.client.explain("explained")
    assert (before.loads, before.held, before.waiting) == ((), (), 0)
    assert before.next.alternatives[0].way in (Way.LOAD, Way.EVICT)
    answer = await ask(shared.client, "explained")
    told = await shared.client.explain("explained")
    (load,) = told.loads
    assert (load.worker_id, load.digest) == (answer.finished.worker_id, model.checkpoint.digest)
    assert load.actual_s == pytest.approx(answer.finished.times.load_s, abs=5.0)
    assert load.predicted.p90_s > load.predicted.mean_s > 0
    slot = told.next.alternatives[0]
    assert (slot.way, slot.worker_id, slot.chosen) == (Way.SLOT, load.worker_id, True)
    assert told.next.why == f"it takes a slot on {load.worker_id}"
    async with asyncio.timeout(WAIT_S):  # a worker's facts follow an answer, and the next answer's end looks at them
        while not {"init", "prefill", "held"} <= {rate.quantity for rate in told.rates}:
            await ask(shared.client, "explained")
            told = await shared.client.explain("explained")


async def test_only_a_model_that_is_deployed_is_explained(shared: Running) -> None:
    with pytest.raises(NotFound):
        await shared.client.explain("dodo")
    with pytest.raises(InvalidRequest):
        await shared.client.explain("")
