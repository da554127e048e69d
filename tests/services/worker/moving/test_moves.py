"""Requests that move between two workers on real sockets, driven as a gateway does: nothing of the answers shows it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from mesh.moves import Abandon, Expect, Ready, Reserved, Send, Stopped
from mesh.requests import Cancel, Grant, Guide, GuideKind, MoveKind, TokenBias
from services.worker.engine.batch import Limits
from services.worker.engine.packed_replica import PackedReplica
from services.worker.loading.loader import Order
from tests.services.worker.engine.guided import text_of
from tests.services.worker.engine.lora import trained
from tests.services.worker.engine.tiny import BLOCK_TOKENS, greedy, prompt, replica
from tests.services.worker.loading.fake_store import serving
from tests.services.worker.moving.workers import MODEL, NAME, Worker, grant, worker
from tests.services.worker.test_relay import with_tokenizer

Pair = tuple[Worker, Worker]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with between(replica(name=NAME), replica(name=NAME), tmp_path) as both:
        yield both


@asynccontextmanager
async def between(a: PackedReplica, b: PackedReplica, scratch: Path, order: Order | None = None) -> AsyncIterator[Pair]:
    """Two workers, and at the end nothing is left on either."""
    async with worker(a, scratch=scratch, order=order) as one, worker(b, scratch=scratch, order=order) as other:
        yield one, other
        await one.is_idle()
        await other.is_idle()


async def moved(source: Worker, target: Worker, asked: Grant, after: int) -> tuple[int, ...]:
    """Grants it to the source, moves it once `after` tokens have come, and gives all of its tokens."""
    source.line.send(asked)
    await source.line.tokens(asked.key, asked.epoch, after)
    return await moved_on(source, target, asked)


async def moved_on(source: Worker, target: Worker, asked: Grant, move_id: str = "move") -> tuple[int, ...]:
    """The rest of that, of one that runs."""
    await copied(source, target, asked, move_id)
    log = (*asked.log, *source.line.of(asked.key, asked.epoch))
    owned = replace(asked, epoch=asked.epoch + 1, log=log, move_id=move_id)
    target.line.send(owned)
    await target.line.tokens(owned.key, owned.epoch, 1)
    source.line.send(Cancel(asked.key, asked.epoch))
    return log + await target.line.whole(owned.key, owned.epoch)


async def copied(source: Worker, target: Worker, asked: Grant, move_id: str = "move") -> Stopped:
    """Up to where the source stands still and the target is ready."""
    known = replace(asked, log=(*asked.log, *source.line.of(asked.key, asked.epoch)))
    target.line.send(Expect(move_id, known, MoveKind.KV))
    reserved = await target.line.event(Reserved, move_id)
    source.line.send(Send(move_id, known.key, known.epoch, target.address, reserved.blocks_there))
    stopped = await source.line.event(Stopped, move_id)
    ready = await target.line.event(Ready, move_id)
    log = (*asked.log, *source.line.of(asked.key, asked.epoch))
    assert (stopped.tokens, ready.tokens) == (len(log), len(asked.prompt) + len(log) - 1)
    return stopped


async def alone(on: Worker, asked: Grant) -> tuple[int, ...]:
    """The same, without a move."""
    on.line.send(replace(asked, key="alone"))
    return await on.line.whole("alone", asked.epoch)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "deepseek_v3"])
async def test_an_answer_goes_on_elsewhere_token_by_token_as_if_it_had_stayed(family: str, tmp_path: Path) -> None:
    async with between(replica(family, name=NAME), replica(family, name=NAME), tmp_path) as (source, target):
        assert await moved(source, target, grant(max_tokens=100), 30) == greedy(family, prompt(17), 100)


async def test_nothing_that_was_sent_is_computed_again(tmp_path: Path) -> None:
    """A prefill at the target would take many steps, 4 tokens each."""
    target_replica = replica(name=NAME, limits=Limits(batch_tokens=4))
    async with between(replica(name=NAME), target_replica, tmp_path) as (source, target):
        await moved(source, target, grant(prompt=prompt(100)), 60)
        (stats,) = target.engine.stats().replicas.values()
        assert stats.steps == stats.tokens == len(target.line.of("r", 2))


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1.0, "seed": 7},
        {"temperature": 0.8, "seed": 3, "top_p": 0.9, "top_k": 40},
        {"temperature": 1.0, "seed": 9, "repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.3},
        {"logit_bias": (TokenBias(77, 3.0),), "repetition_penalty": 1.2},
    ],
    ids=["seeded", "nucleus", "penalties", "biased"],
)
async def test_what_is_drawn_is_what_would_have_been(pair: Pair, sampling: dict[str, Any]) -> None:
    source, target = pair
    asked = grant(**sampling)
    assert await moved(source, target, asked, 50) == await alone(source, asked)


async def test_likelihoods_come_for_each_token_once(pair: Pair) -> None:
    source, target = pair
    asked = grant(top_logprobs=2)
    answer = await moved(source, target, asked, 50)
    frames = [*source.line.frames, *target.line.frames]
    likely = [one for frame in frames for one in frame.logprobs]
    assert answer == greedy("llama", prompt(17), 160) == tuple(one.top[0].token_id for one in likely)


async def test_a_guided_answer_keeps_to_its_guide_over_the_move(tmp_path: Path) -> None:
    guide = Guide(GuideKind.REGEX, "([0-9]{3}-){40}")
    async with serving(with_tokenizer()) as (_, address):
        order = Order(MODEL, with_tokenizer().digest, address)
        async with between(replica(name=NAME), replica(name=NAME), tmp_path, order) as (source, target):
            asked = grant(guide=guide, temperature=1.0, seed=5)
            answer = await moved(source, target, asked, 20)
            assert len(text_of(answer)) == 160
            assert answer == await alone(target, asked)


async def test_an_adapters_request_goes_on_with_the_adapter(tmp_path: Path) -> None:
    one, base = trained("llama"), [replica(name="base"), replica(name="base")]
    async with between(*base, tmp_path) as both:
        for each, on in zip(both, base, strict=True):
            await asyncio.wrap_future(each.engine.add_adapter("base", one.on(on, NAME)))
        assert await moved(*both, grant(max_tokens=100), 40) == one.greedy(prompt(17), 100)


async def test_blocks_that_are_there_already_are_not_sent(pair: Pair) -> None:
    source, target = pair
    asked = grant(prompt=prompt(200), max_tokens=100)
    await alone(target, replace(asked, sampling=replace(asked.sampling, max_tokens=1)))
    source.line.send(asked)
    await source.line.tokens("r", 1, 20)
    stopped = await copied(source, target, asked)
    block_bytes = 2 * 2 * 2 * 16 * 4 * BLOCK_TOKENS  # layers, keys and values, heads, width, bytes
    assert stopped.bytes_sent <= (100 + BLOCK_TOKENS) // BLOCK_TOKENS * block_bytes
    source.line.send(Cancel("r", 1))
    target.line.send(replace(asked, epoch=2, log=source.line.of("r", 1), move_id="move"))
    assert source.line.of("r", 1) + await target.line.whole("r", 2) == greedy("llama", prompt(200), 100)


async def test_many_move_at_once_and_what_stays_does_not_notice(pair: Pair) -> None:
    source, target = pair
    for one in (source, target):
        one.line.send(grant("stays", prompt=prompt(9), max_tokens=100))
    keys = {f"r{i}": prompt(10 + i) for i in range(3)}
    asked = {key: grant(key, prompt=ids, max_tokens=60) for key, ids in keys.items()}
    for one in asked.values():
        source.line.send(one)
    for key in keys:
        await source.line.tokens(key, 1, 10)
    answers = await asyncio.gather(*(moved_on(source, target, one, f"move {one.key}") for one in asked.values()))
    assert answers == [greedy("llama", ids, 60) for ids in keys.values()]
    for one in (source, target):
        assert await one.line.whole("stays", 1) == greedy("llama", prompt(9), 100)


async def test_moves_are_counted(pair: Pair) -> None:
    counts = [
        ("whimbrel_worker_moves_total", {"end": "target", "kind": "kv", "outcome": "granted"}),
        ("whimbrel_worker_moves_total", {"end": "target", "kind": "kv", "outcome": "abandoned"}),
        ("whimbrel_worker_move_bytes_total", {}),
    ]
    before = [REGISTRY.get_sample_value(*one) or 0.0 for one in counts]
    source, target = pair
    target.line.send(Expect("other", grant("other"), MoveKind.KV))
    target.line.send(Abandon("other"))
    await moved(source, target, grant(max_tokens=60), 30)
    sent = (await source.line.event(Stopped)).bytes_sent
    after = [REGISTRY.get_sample_value(*one) or 0.0 for one in counts]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1.0, 1.0, sent]


async def test_a_source_counts_what_it_has_sent(pair: Pair) -> None:
    source, target = pair
    source.line.send(grant())
    await source.line.tokens("r", 1, 30)
    sent = ("whimbrel_worker_moves_total", {"end": "source", "kind": "kv", "outcome": "sent"})
    before = REGISTRY.get_sample_value(*sent) or 0.0
    await copied(source, target, grant())
    while (REGISTRY.get_sample_value(*sent) or 0.0) == before:  # noqa: ASYNC110  a counter tells of no change
        await asyncio.sleep(0)
    assert (REGISTRY.get_sample_value(*sent) or 0.0) == before + 1.0
    source.line.send(Cancel("r", 1))
    target.line.send(Abandon("move"))


async def test_an_answer_moves_there_and_back_again(pair: Pair) -> None:
    here, there = pair
    asked = grant()
    here.line.send(asked)
    await here.line.tokens("r", 1, 30)
    await copied(here, there, asked, "there")
    log = here.line.of("r", 1)
    second = replace(asked, epoch=2, log=log, move_id="there")
    there.line.send(second)
    await there.line.tokens("r", 2, 30)
    here.line.send(Cancel("r", 1))
    assert await moved_on(there, here, second, "back") == greedy("llama", prompt(17), 160)


async def test_an_answer_goes_on_where_its_tokens_were_computed_meanwhile(tmp_path: Path) -> None:
    slow = replica(name=NAME, limits=Limits(batch_tokens=16))
    async with between(replica(name=NAME), slow, tmp_path) as (source, target):
        asked = grant(prompt=prompt(200), max_tokens=120)
        source.line.send(asked)
        await source.line.tokens("r", 1, 10)
        for _ in range(3):
            known = replace(asked, log=source.line.of("r", 1))
            target.line.send(Expect("move", known, MoveKind.TOKENS))
            while (await target.line.event(Ready)).tokens < len(known.prompt) + len(known.log):
                await target.line.more()
        source.line.send(Cancel("r", 1))
        computed = target.engine.stats().replicas[NAME].steps
        target.line.send(replace(known, epoch=2, move_id="move"))
        assert known.log + await target.line.whole("r", 2) == greedy("llama", prompt(200), 120)
        (stats,) = target.engine.stats().replicas.values()
        assert stats.steps - computed == stats.tokens


async def test_logs_longer_or_shorter_than_what_was_sent_are_gone_on_from(pair: Pair) -> None:
    source, target = pair
    whole = greedy("llama", prompt(17), 160)
    for key, change in {"short": -9, "long": 9}.items():
        asked = grant(key)
        source.line.send(asked)
        await source.line.tokens(key, 1, 40)
        stopped = await copied(source, target, asked, key)
        log = whole[: stopped.tokens + change]
        target.line.send(replace(asked, epoch=2, log=log, move_id=key))
        source.line.send(Cancel(key, 1))
        assert log + await target.line.whole(key, 2) == whole
