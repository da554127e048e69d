"""One worker that has memory for one model and runs one request at a time, and that cannot map the store's memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

import pytest
import pytest_asyncio

from cli.cluster import ClusterOptions
from mesh.clients.gateway_records import ModelState, SamplingWishes
from mesh.errors import NoRoom
from mesh.requests import FinishReason, Phase, Progress, StartKind, TokenBias
from tests.e2e.asking import LONG, PROMPT, SHORT, ask, begun, generate_ids, replica_status, whole
from tests.e2e.conftest import SETTINGS, Running, running
from tests.e2e.library import BIG, KINDS, Library, prompt_ids
from tests.e2e.memory import memory_of

KV_BYTES = 4 << 20
MEMORY_BYTES = 8 << 20  # one of the tiny models, which have 1 to 2 MB, and its KV; no two of them, and never BIG
TOKENS = 24
MOST_WAITING = 2
WORKER = {
    "WHIMBREL_TRANSPORT": "stream",
    "WHIMBREL_MEMORY_BYTES": str(MEMORY_BYTES),
    "WHIMBREL_KV_BYTES": str(KV_BYTES),
    "WHIMBREL_SLOTS": "1",
    "WHIMBREL_DRAFT_TOKENS": "8",
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def small(tmp_path_factory: pytest.TempPathFactory, library: Library) -> AsyncIterator[Running]:
    """The cluster."""
    settings_of = {"worker": WORKER, "scheduler": {"WHIMBREL_MAX_WAITING": str(MOST_WAITING)}}
    options = ClusterOptions(tmp_path_factory.mktemp("small"), workers=1, settings=SETTINGS, settings_of=settings_of)
    async with running(options, library, (*KINDS, BIG)) as cluster:
        yield cluster


@pytest.mark.parametrize("kind", KINDS)
async def test_a_streamed_model_takes_an_idle_ones_memory_and_answers_as_transformers_does(
    small: Running, kind: str
) -> None:
    await small.deployed(kind)
    prompt = prompt_ids(37)
    answer = await whole(generate_ids(small.address, kind, prompt, SamplingWishes(temperature=0.0, max_tokens=TOKENS)))
    assert answer.started.start_kind is StartKind.DISK
    assert answer.token_ids == small.library.reference(kind, prompt, TOKENS)
    assert await resident(small) == {kind}
    assert memory_of(small.cluster.process("worker-1").pid).mapped_parts == 0


async def test_an_answer_that_repeats_itself_takes_fewer_steps_than_tokens(small: Running) -> None:
    await small.deployed("llama")
    repeating = SamplingWishes(temperature=0.0, max_tokens=TOKENS, logit_bias=(TokenBias(100, 100.0),))
    answer = await whole(generate_ids(small.address, "llama", prompt_ids(8), repeating))
    assert answer.token_ids == (100,) * TOKENS
    replica = await replica_status(small.cluster, "worker-1", "llama")
    assert replica is not None
    assert 0 < replica.taken_tokens <= replica.draft_tokens
    assert replica.steps < replica.tokens


async def test_a_busy_model_is_not_evicted_and_the_next_gets_its_memory_when_it_is_idle(small: Running) -> None:
    await small.deployed("llama", "busy")
    await small.deployed("qwen2", "next")
    busy = small.client.generate("busy", PROMPT, LONG)
    waiting = small.client.generate("next", PROMPT, SHORT)
    async with aclosing(busy), aclosing(waiting):
        await begun(busy)
        assert await anext(waiting) == Progress(Phase.QUEUED)
        assert await resident(small) == {"busy"}
        rest, answer = await asyncio.gather(whole(busy), whole(waiting))
    assert rest.finished.reason is FinishReason.LENGTH
    assert rest.finished.completion_tokens == LONG.max_tokens
    assert answer.finished.times.queue_s > 0
    assert await resident(small) == {"next"}


async def test_a_client_that_leaves_the_queue_holds_no_place_and_no_model_is_evicted_for_it(small: Running) -> None:
    await small.deployed("llama", "busy")
    await small.deployed("qwen2", "next")
    busy = small.client.generate("busy", PROMPT, LONG)
    async with aclosing(busy):
        await begun(busy)
        for model in ("next", "busy"):  # one waits for memory, one for the slot
            leaving = small.client.generate(model, PROMPT, SHORT)
            async with aclosing(leaving):
                assert await anext(leaving) == Progress(Phase.QUEUED)
    after = await ask(small.client, "busy")
    assert after.started.start_kind is StartKind.WARM
    assert (await small.client.get("next")).state is ModelState.COLD


async def test_no_more_requests_wait_than_may(small: Running) -> None:
    await small.deployed("llama", "busy")
    async with AsyncExitStack() as stack:
        busy = await stack.enter_async_context(aclosing(small.client.generate("busy", PROMPT, LONG)))
        await begun(busy)
        for position in range(MOST_WAITING):
            held = await stack.enter_async_context(aclosing(small.client.generate("busy", PROMPT, SHORT)))
            assert await anext(held) == Progress(Phase.QUEUED, position=position)
        with pytest.raises(NoRoom) as refused:
            await ask(small.client, "busy")
    assert refused.value.reason == "QUEUE_FULL"
    assert refused.value.retry_after_s


async def test_a_model_larger_than_every_worker_is_refused_for_good(small: Running) -> None:
    await small.deployed(BIG)
    with pytest.raises(NoRoom) as refused:
        await ask(small.client, BIG)
    assert refused.value.reason == "NO_WORKER_LARGE_ENOUGH"
    assert refused.value.retry_after_s is None


async def resident(small: Running) -> set[str]:
    """The models that the worker has."""
    (worker,) = (member.worker for member in await small.client.cluster() if member.worker)
    return {replica.model for replica in worker.replicas}
