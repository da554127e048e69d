"""How answers are chosen, through all hops: seeds, several answers, guides, biases, likelihoods."""

import asyncio
import json
import math
from contextlib import aclosing
from dataclasses import replace

import pytest

from mesh.clients.gateway_records import Delta, ModelState, SamplingWishes, Started
from mesh.errors import InvalidRequest
from mesh.requests import FinishReason, Guide, GuideKind, TokenBias
from tests.e2e.asking import PATIENCE_S, PROMPT, Answer, ask, is_idle, replica_status, until, whole
from tests.e2e.conftest import Running

BLOCK_TOKENS = 16
SEEDED = SamplingWishes(temperature=1.0, max_tokens=12, seed=41, ignore_eos=True)
BIRD = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "legs": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["name", "legs"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
SCHEMA = Guide(GuideKind.JSON_SCHEMA, json.dumps(BIRD))


async def several(shared: Running, model: str, answers: int, wishes: SamplingWishes) -> Answer:
    """All of them, to the end."""
    return await whole(shared.client.generate(model, PROMPT, wishes, answers=answers, within_s=PATIENCE_S))


def of(answer: Answer, index: int) -> tuple[int, ...]:
    """The tokens of one of several answers."""
    return tuple(token for delta in answer.deltas if delta.index == index for token in delta.token_ids)


async def test_a_seeded_answer_is_the_same_alone_in_company_and_from_another_replica(shared: Running) -> None:
    await shared.deployed("llama")
    await shared.deployed("llama", "llama-again")
    wishes = [replace(SEEDED, seed=seed) for seed in range(4)]
    alone = [(await ask(shared.client, "llama", one)).token_ids for one in wishes]
    assert len(set(alone)) == len(alone)
    together = await asyncio.gather(*(ask(shared.client, "llama", one) for one in wishes))
    assert [answer.token_ids for answer in together] == alone
    elsewhere = await asyncio.gather(*(ask(shared.client, "llama-again", one) for one in wishes))
    assert [answer.token_ids for answer in elsewhere] == alone


async def test_each_of_several_answers_is_the_one_that_its_own_seed_gives(shared: Running) -> None:
    await shared.deployed("llama")
    together = await several(shared, "llama", 3, SEEDED)
    for index in range(3):
        one = await ask(shared.client, "llama", replace(SEEDED, seed=41 + index))
        assert of(together, index) == one.token_ids
    assert [(end.reason, end.tokens) for end in together.finished.answers] == [(FinishReason.LENGTH, 12)] * 3
    assert together.finished.completion_tokens == 36


async def test_the_later_answers_find_the_prompt_that_the_first_has_read(shared: Running) -> None:
    model = await shared.deployed("llama")
    prompt = " ".join(f"the {n} birds of the {model.name} coast" for n in range(40))
    first = await whole(shared.client.generate("llama", PROMPT, replace(SEEDED, max_tokens=1), within_s=PATIENCE_S))
    before = await replica_status(shared.cluster, first.started.worker_id, "llama")
    answer = await whole(shared.client.generate("llama", prompt, SEEDED, answers=3, within_s=PATIENCE_S))
    after = await replica_status(shared.cluster, answer.started.worker_id, "llama")
    assert before
    assert after
    found = after.prefix_tokens - before.prefix_tokens
    assert found == 2 * ((answer.started.prompt_tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS) > 400


async def test_a_guided_answer_is_what_its_schema_says(shared: Running) -> None:
    await shared.deployed("llama")
    wishes = replace(SEEDED, max_tokens=100, ignore_eos=False, guide=SCHEMA)
    answer = await ask(shared.client, "llama", wishes)
    assert json.loads(answer.text).keys() == {"name", "legs"}
    assert answer.finished.reason is FinishReason.STOP
    assert (await ask(shared.client, "llama", wishes)).token_ids == answer.token_ids


async def test_a_bad_guide_is_refused_before_the_model_is_loaded_for_it(shared: Running) -> None:
    await shared.deployed("qwen2", "never-asked")
    bad = replace(SEEDED, guide=Guide(GuideKind.JSON_SCHEMA, '{"type": "bird"}'))
    with pytest.raises(InvalidRequest, match="Invalid type: bird") as refused:
        await ask(shared.client, "never-asked", bad)
    assert refused.value.reason == "BAD_GUIDE"
    assert [violation.field for violation in refused.value.violations] == ["sampling.guide.json_schema"]
    assert (await shared.client.get("never-asked")).state is ModelState.COLD


async def test_a_bias_steers_and_likelihoods_tell_what_the_model_thought(shared: Running) -> None:
    await shared.deployed("llama")
    raised = (TokenBias(300, 100.0),)
    answer = await ask(shared.client, "llama", replace(SEEDED, max_tokens=3, logit_bias=raised, top_logprobs=2))
    assert answer.token_ids == (300, 300, 300)
    likely = [one for delta in answer.deltas for one in delta.logprobs]
    assert len(likely) == 3
    assert all(one.logprob <= one.top[0].logprob < 0 for one in likely)
    assert all(math.exp(one.top[0].logprob) + math.exp(one.top[1].logprob) <= 1 for one in likely)
    assert all(one.top[0].token_id != one.top[1].token_id for one in likely)


async def test_a_client_that_leaves_several_answers_leaves_nothing_running(shared: Running) -> None:
    await shared.deployed("llama")
    events = shared.client.generate("llama", PROMPT, replace(SEEDED, max_tokens=1500), answers=4, within_s=PATIENCE_S)
    seen: set[int] = set()
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Started):
                worker_id = event.worker_id
            seen |= {event.index} if isinstance(event, Delta) else set()
            if len(seen) == 4:
                break
    await until(lambda: replica_status(shared.cluster, worker_id, "llama"), is_idle)
