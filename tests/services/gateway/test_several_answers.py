"""Several answers to one request: one place, one journal each, each ending by itself, all told in one stream."""

import asyncio
from dataclasses import replace

import pytest

from mesh.errors import MeshError
from mesh.requests import FinishReason, Frame, Grant, TokenLogprob, TopLogprob
from services.gateway.answer import AnswerEnd, Event, Finished, Started
from services.gateway.asked import Asked
from services.gateway.strand import Delta, Prepared
from tests.services.gateway.conftest import Bench
from tests.services.gateway.edges import FakeScheduler, FakeWorker, placement
from tests.services.gateway.test_answer import EOS, SAMPLING, all_of, asked, ids, prepared, text_of

Asking = asyncio.Task[list[Event]]


def three(*stops: str, seed: int = 1) -> Asked:
    """A request for three answers."""
    sampling = replace(SAMPLING, seed=seed)
    one = prepared()
    question = replace(one.question, sampling=sampling)
    return replace(asked(*stops), answers=3, prepared=Prepared(question, one.text))


async def started(bench: Bench, request: Asked) -> tuple[FakeScheduler, FakeWorker, Asking, list[Grant]]:
    """The grants of all three: that of the first, and those that follow its first token, " a"."""
    scheduler, fake = await bench.scheduler(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", fake.address))
    running = asyncio.create_task(all_of(bench.answers.run(request)))
    first = await fake.granted()
    assert fake.commands.empty()
    fake.say(Frame(first.key, first.epoch, 0, ids(" a")))
    return scheduler, fake, running, [first, await fake.granted(), await fake.granted()]


def of(events: list[Event], index: int) -> list[Event]:
    """The deltas of one answer."""
    return [event for event in events if isinstance(event, Delta) and event.index == index]


async def test_three_answers_have_one_place_and_a_journal_each(bench: Bench) -> None:
    scheduler, fake, running, grants = await started(bench, three())
    assert len({grant.key for grant in grants}) == 3
    assert len({grant.prompt for grant in grants}) == 1
    for grant, text, seq in zip(grants, (" the sea", " the hill", " calm"), (len(ids(" a")), 0, 0), strict=True):
        fake.say(Frame(grant.key, grant.epoch, seq, ids(text), FinishReason.LENGTH))
    events = await running
    assert [text_of(of(events, index)) for index in range(3)] == [" a the sea", " the hill", " calm"]
    assert len(scheduler.asked) == 1
    assert [type(event) for event in events if isinstance(event, Started | Finished)] == [Started, Finished]


async def test_each_answer_has_a_seed_of_its_own_the_next_one_for_the_next(bench: Bench) -> None:
    _, _, running, grants = await started(bench, three(seed=(1 << 64) - 2))
    assert [grant.sampling.seed for grant in grants] == [(1 << 64) - 2, (1 << 64) - 1, 0]
    running.cancel()


async def test_answers_end_one_by_one_and_the_end_tells_of_each(bench: Bench) -> None:
    _, fake, running, grants = await started(bench, three("sea"))
    fake.say(Frame(grants[1].key, 1, 0, ids(" over the sea and the hill")))
    assert (await fake.cancelled()).key == grants[1].key  # at once: the others go on
    fake.say(Frame(grants[2].key, 1, 0, (*ids(" calm"), EOS), FinishReason.STOP))
    fake.say(Frame(grants[0].key, 1, len(ids(" a")), ids(" the"), FinishReason.LENGTH))
    events = await running
    end = events[-1]
    assert isinstance(end, Finished)
    assert [(answer.reason, answer.stop) for answer in end.answers] == [
        (FinishReason.LENGTH, ""),
        (FinishReason.STOP, "sea"),
        (FinishReason.STOP, ""),
    ]
    assert end.answers[2] == AnswerEnd(FinishReason.STOP, "", len(ids(" calm")) + 1)
    assert end.completion_tokens == sum(answer.tokens for answer in end.answers)
    assert text_of(of(events, 1)) == " over the "


async def test_one_client_that_leaves_cancels_all_of_its_answers(bench: Bench) -> None:
    scheduler, fake, running, grants = await started(bench, three())
    running.cancel()
    assert {(await fake.cancelled()).key for _ in grants} == {grant.key for grant in grants}
    async with asyncio.timeout(60):
        await scheduler.released.wait()


async def test_a_worker_lost_before_any_token_is_replaced_for_all_answers(bench: Bench) -> None:
    scheduler, dying, well = await bench.scheduler(), await bench.worker(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", dying.address))
    running = asyncio.create_task(all_of(bench.answers.run(three())))
    lost = await dying.granted()
    await dying.crash()
    scheduler.answers.put_nowait(placement("w2", well.address, fence=2))
    first = await well.granted()
    assert (first.key, first.epoch, first.sampling.seed) == (lost.key, lost.epoch + 1, lost.sampling.seed)
    well.say(Frame(first.key, first.epoch, 0, ids(" a"), FinishReason.LENGTH))
    for _ in range(2):
        grant = await well.granted()
        well.say(Frame(grant.key, grant.epoch, 0, ids(" b"), FinishReason.LENGTH))
    assert [text_of(of(await running, index)) for index in range(3)] == [" a", " b", " b"]


async def test_one_answer_that_fails_fails_the_request_after_what_the_others_had_said(bench: Bench) -> None:
    _, fake, running, grants = await started(bench, three())
    failure = Frame(grants[1].key, 1, failure_reason="ENGINE_FAILED", failure="it is so")
    fake.say(Frame(grants[0].key, 1, len(ids(" a")), ids(" the")), failure)
    with pytest.raises(MeshError, match="it is so"):
        await running
    assert {(await fake.cancelled()).key for _ in grants} == {grant.key for grant in grants}


async def test_likelihoods_come_with_their_tokens_named_and_end_where_the_answer_stops(bench: Bench) -> None:
    scheduler, fake = await bench.scheduler(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", fake.address))
    running = asyncio.create_task(all_of(bench.answers.run(asked("sea"))))
    grant = await fake.granted()
    tokens = ids(" the sea and")
    likely = tuple(
        TokenLogprob(-0.5 * n, (TopLogprob(token, -0.25), TopLogprob(EOS, -9.0))) for n, token in enumerate(tokens)
    )
    fake.say(Frame(grant.key, grant.epoch, 0, tokens, logprobs=likely))
    (delta,) = [event for event in await running if isinstance(event, Delta)]
    assert len(delta.logprobs) == len(delta.tokens) < len(tokens)
    assert [one.logprob for one in delta.logprobs] == [one.logprob for one in likely[: len(delta.tokens)]]
    assert "".join(one.top[0].text for one in delta.logprobs).startswith(" the ")
    assert {one.top[1].text for one in delta.logprobs} == {"<|end|>"}
