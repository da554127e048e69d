"""A client that leaves, or whose time is up, stops the work for it: at the gateway, the scheduler and the engine."""

import asyncio

import pytest
from whimbrel.worker.v1.worker_pb2 import ReplicaStatus

from mesh.clients.gateway_records import Delta, SamplingWishes
from mesh.errors import Expired
from tests.e2e.asking import (
    LONG,
    PROMPT,
    answering,
    ask,
    generate_ids,
    is_idle,
    replica_status,
    until,
    until_model,
    whole,
)
from tests.e2e.conftest import Running
from tests.e2e.library import BIG, prompt_ids

LONG_PROMPT = 2000  # four steps of prefill, each of them long
MOST_EXTRA_STEPS = 2
THIRTY = SamplingWishes(temperature=0.0, max_tokens=30, ignore_eos=True)


async def test_a_passed_deadline_ends_the_stream_and_the_engines_work(shared: Running) -> None:
    await shared.deployed(BIG, "hurried")
    worker_id = (await ask(shared.client, "hurried")).started.worker_id
    with pytest.raises(Expired):
        await whole(shared.client.generate("hurried", PROMPT, LONG, within_s=0.3))
    idle = await until(lambda: replica_status(shared.cluster, worker_id, "hurried"), is_idle)
    assert idle is not None
    assert LONG.max_tokens
    assert idle.tokens < LONG.max_tokens


async def test_a_cancelled_request_costs_at_most_two_more_steps(shared: Running) -> None:
    await shared.deployed(BIG, "dropped")
    worker_id = (await ask(shared.client, "dropped")).started.worker_id

    async def look() -> ReplicaStatus:
        found = await replica_status(shared.cluster, worker_id, "dropped")
        assert found is not None
        return found

    before = await look()
    wishes = SamplingWishes(temperature=0.0, max_tokens=40, ignore_eos=True)
    events = generate_ids(shared.address, "dropped", prompt_ids(LONG_PROMPT), wishes)
    request = asyncio.ensure_future(whole(events))
    running = await until(look, lambda now: now.steps > before.steps)
    request.cancel()
    await asyncio.wait([request])
    idle = await until(look, is_idle)
    assert running.free_blocks < idle.free_blocks == before.free_blocks
    assert idle.steps <= running.steps + MOST_EXTRA_STEPS
    assert idle.tokens == before.tokens  # it never came to its first


async def test_one_client_that_leaves_takes_nothing_from_the_others(shared: Running) -> None:
    await shared.deployed(BIG, "both")
    alone = await whole(shared.client.generate("both", PROMPT, THIRTY))
    async with answering(shared.client, "both") as (_, staying):
        async with answering(shared.client, "both"):
            pass
        tokens: dict[int, int] = {}  # by their place in the answer
        async for event in staying:
            if isinstance(event, Delta):
                tokens |= dict(enumerate(event.token_ids, event.seq))
            if len(tokens) >= 20:
                break
    assert tokens
    assert tokens == {place: alone.token_ids[place] for place in tokens}


async def test_a_model_of_which_nothing_runs_any_more_goes_to_sleep(shared: Running) -> None:
    """A place that a client left behind would keep it awake."""
    await shared.deployed("llama", "left", keep_alive_s=0.2)
    async with answering(shared.client, "left"):
        pass
    await until_model(shared.client, "left", lambda model: not model.replicas)
