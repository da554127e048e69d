"""Requests of which another gateway has given a part: the rest comes, and reads on where that ended."""

import asyncio
from dataclasses import replace

import pytest

from mesh.requests import FinishReason, Frame, Grant
from services.gateway.answer import AnswerEnd, Event, Finished, Started
from services.gateway.asked import Asked
from services.gateway.strand import Delta
from tests.services.gateway.conftest import Bench
from tests.services.gateway.edges import FakeScheduler, FakeWorker, placement
from tests.services.gateway.test_answer import EOS, SAMPLING, all_of, asked, ids, text_of
from tests.services.gateway.test_resuming import ended
from tests.services.gateway.test_several_answers import of, three

Asking = asyncio.Task[list[Event]]


def with_(request: Asked, *received: tuple[int, ...]) -> Asked:
    """The request of a client that has these tokens of its answers."""
    return replace(request, received=received)


async def granted(bench: Bench, request: Asked) -> tuple[FakeScheduler, FakeWorker, Asking, Grant]:
    """The first grant of it."""
    scheduler, fake = await bench.scheduler(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", fake.address))
    running = asyncio.create_task(all_of(bench.answers.run(request)))
    return scheduler, fake, running, await fake.granted()


async def test_the_rest_comes_and_nothing_of_what_was_received(bench: Bench) -> None:
    received = ids(" flies over")
    scheduler, fake, running, grant = await granted(bench, with_(asked(), received))
    assert (grant.log, scheduler.asked[0].digest) == (received, "d1")
    fake.say(Frame(grant.key, grant.epoch, len(received), (*ids(" the sea"), EOS), FinishReason.STOP))
    events = await running
    assert text_of(events) == " the sea"
    assert [event.seq for event in events if isinstance(event, Delta)] == [len(received)]
    assert [type(event) for event in events if isinstance(event, Started | Finished)] == [Started, Finished]
    end = ended(events)
    assert end.completion_tokens == len(received) + len(ids(" the sea")) + 1
    assert end.moves == ()


@pytest.mark.parametrize("cut", range(1, len(ids(" über das Wattenmeer 🐦!"))))
async def test_a_character_that_was_cut_comes_whole(bench: Bench, cut: int) -> None:
    """Wherever the stream broke, what was read before and after is the text."""
    text = " über das Wattenmeer 🐦!"
    tokens = ids(text)
    whole = await all_text(bench, asked(), tokens)
    before = await all_text(bench, asked(), tokens[:cut], FinishReason.CANCELLED)
    _, fake, running, grant = await granted(bench, with_(asked(), tokens[:cut]))
    fake.say(Frame(grant.key, grant.epoch, cut, tokens[cut:], FinishReason.LENGTH))
    after = text_of(await running)
    assert before.removesuffix("\ufffd") + after == whole == text


async def all_text(
    bench: Bench, request: Asked, tokens: tuple[int, ...], finish: FinishReason = FinishReason.LENGTH
) -> str:
    """The text of an answer of these tokens."""
    _, fake, running, grant = await granted(bench, request)
    fake.say(Frame(grant.key, grant.epoch, 0, tokens, finish))
    return text_of(await running)


async def test_a_stop_text_may_lie_across_the_break(bench: Bench) -> None:
    received = ids(" over the")
    _, fake, running, grant = await granted(bench, with_(asked("the sea"), received))
    fake.say(Frame(grant.key, grant.epoch, len(received), ids(" sea and")))
    events = await running
    assert text_of(events) == ""  # "the" was held back when the stream broke
    assert [answer.stop for answer in ended(events).answers] == ["the sea"]


async def test_what_was_held_back_for_a_stop_text_comes_when_that_does_not(bench: Bench) -> None:
    received = ids(" over the")
    _, fake, running, grant = await granted(bench, with_(asked("the sea"), received))
    fake.say(Frame(grant.key, grant.epoch, len(received), ids(" hill"), FinishReason.LENGTH))
    assert text_of(await running) == "the hill"


async def test_several_answers_go_on_each_from_its_own_tokens(bench: Bench) -> None:
    request = with_(three(), ids(" a"), (*ids(" b"), EOS), ())
    _, fake, running, first = await granted(bench, request)
    assert (first.log, first.sampling.seed) == (ids(" a"), SAMPLING.seed)
    fake.say(Frame(first.key, first.epoch, len(first.log), ids(" c"), FinishReason.LENGTH))
    third = await fake.granted()
    assert (third.log, third.sampling.seed) == ((), SAMPLING.seed + 2)
    fake.say(Frame(third.key, third.epoch, 0, ids(" d"), FinishReason.LENGTH))
    events = await running
    assert [text_of(of(events, index)) for index in range(3)] == [" c", "", " d"]
    assert ended(events).answers[1] == AnswerEnd(FinishReason.STOP, "", len(ids(" b")) + 1)


@pytest.mark.parametrize(
    ("tokens", "end"),
    [
        ((*ids(" flies"), EOS), AnswerEnd(FinishReason.STOP, "", len(ids(" flies")) + 1)),
        (ids("a") * SAMPLING.max_tokens, AnswerEnd(FinishReason.LENGTH, "", SAMPLING.max_tokens)),
        (ids(" by the sea"), AnswerEnd(FinishReason.STOP, "sea", len(ids(" by the sea")))),
    ],
)
async def test_one_of_which_only_the_end_was_missing_gets_that_and_no_worker(
    bench: Bench, tokens: tuple[int, ...], end: AnswerEnd
) -> None:
    scheduler = await bench.scheduler()
    events = await all_of(bench.answers.run(with_(asked("sea"), tokens)))
    assert [type(event) for event in events] == [Finished]
    assert ended(events).answers == (end,)
    assert scheduler.asked == []
