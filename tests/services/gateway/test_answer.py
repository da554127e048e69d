"""One request from prompt to last token, between a scheduler and workers that the test plays."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from mesh.errors import Broken, InvalidRequest, MeshError, NoRoom, Unreachable
from mesh.requests import FinishReason, Frame, Phase, Progress, Sampling
from services.gateway.answer import AnswerEnd, Event, Finished, Started, check_room
from services.gateway.asked import Asked
from services.gateway.journal import Question
from services.gateway.strand import Delta, Prepared
from services.gateway.texts import Text
from tests.services.gateway.conftest import Bench
from tests.services.gateway.edges import WAIT_S, placement
from tests.services.gateway.tiny_tokenizers import byte_level, end_id

EOS = end_id()
SAMPLING = Sampling(64, 0.0, 0, 1.0, 0.0, 1.0, 0.0, 0.0, 1, (EOS,))


def ids(text: str) -> tuple[int, ...]:
    """A text's tokens."""
    return tuple(byte_level().encode(text).ids)


def prepared(digest: str = "d1", prompt: str = "the curlew") -> Prepared:
    """The request for one version."""
    return Prepared(Question(digest, ids(prompt), SAMPLING), Text(byte_level(), None, {}, (EOS,), 320, 512))


async def of_another_version(digest: str) -> Prepared:
    """The version d0 has other tokens for the same text; others cannot answer it."""
    if digest != "d0":
        raise InvalidRequest.field("prompt", f"is too long for {digest}")
    return prepared(digest, "the whimbrel")


def asked(*stops: str) -> Asked:
    """A request that has just arrived, when the catalogue points at the version d1."""
    now_s = asyncio.get_running_loop().time()
    return Asked("client's own", "m", stops, now_s, prepared(), of_another_version)


async def all_of(events: AsyncGenerator[Event, None]) -> list[Event]:
    """Everything, in good time."""
    async with asyncio.timeout(WAIT_S), aclosing(events):
        return [event async for event in events]


def text_of(events: list[Event]) -> str:
    """The answer as the client reads it."""
    return "".join(event.text for event in events if isinstance(event, Delta))


async def answered(bench: Bench, *texts: str, stops: tuple[str, ...] = ()) -> list[Event]:
    """The events when a worker gives these texts, one a step, and then its end-of-sequence token."""
    scheduler, fake = await bench.scheduler(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", fake.address))
    running = asyncio.create_task(all_of(bench.answers.run(asked(*stops))))
    grant, seq = await fake.granted(), 0
    for tokens in map(ids, texts):
        fake.say(Frame(grant.key, grant.epoch, seq, tokens))
        seq += len(tokens)
    fake.say(Frame(grant.key, grant.epoch, seq, (EOS,), FinishReason.STOP))
    return await running


async def test_an_answer_is_progress_a_start_deltas_and_one_end(bench: Bench) -> None:
    events = await answered(bench, " flies", " over the sea")
    kinds = [type(event) for event in events]
    assert kinds[:3] == [Progress, Progress, Started]
    assert set(kinds[3:-1]) == {Delta}
    assert kinds[-1] is Finished
    assert events[1] == Progress(Phase.READY)
    assert text_of(events) == " flies over the sea"


async def test_the_end_tells_how_it_went(bench: Bench) -> None:
    *_, end = await answered(bench, " flies", " over")
    assert isinstance(end, Finished)
    tokens = len(ids(" flies")) + len(ids(" over")) + 1
    assert (end.answers, end.placement.worker_id) == ((AnswerEnd(FinishReason.STOP, "", tokens),), "w1")
    assert end.completion_tokens == tokens
    assert 0 <= end.first_token_s <= end.total_s


async def test_each_delta_says_where_its_tokens_stand(bench: Bench) -> None:
    deltas = [event for event in await answered(bench, " flies", " over") if isinstance(event, Delta)]
    assert sum((delta.tokens for delta in deltas), ()) == (*ids(" flies"), *ids(" over"), EOS)
    assert [delta.seq for delta in deltas] == [sum(len(d.tokens) for d in deltas[:n]) for n in range(len(deltas))]


async def test_a_stop_text_ends_the_answer_and_the_workers_work(bench: Bench) -> None:
    scheduler, fake = await bench.scheduler(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", fake.address))
    running = asyncio.create_task(all_of(bench.answers.run(asked("sea"))))
    grant = await fake.granted()
    fake.say(Frame(grant.key, grant.epoch, 0, ids(" over the sea and the hill")))
    *events, end = await running
    assert text_of(events) == " over the "
    assert isinstance(end, Finished)
    assert [(answer.reason, answer.stop) for answer in end.answers] == [(FinishReason.STOP, "sea")]
    assert end.completion_tokens < len(ids(" over the sea and the hill"))
    assert (await fake.cancelled()).key == grant.key


async def test_a_client_that_does_not_read_holds_no_place_once_its_answer_is_there(bench: Bench) -> None:
    scheduler, fake = await bench.scheduler(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", fake.address))
    async with aclosing(bench.answers.run(asked())) as events, asyncio.timeout(WAIT_S):
        while await anext(events) != Progress(Phase.READY):
            pass
        grant = await fake.granted()
        fake.say(Frame(grant.key, grant.epoch, 0, ids(" flies")))
        assert isinstance(await anext(events), Started)
        fake.say(Frame(grant.key, grant.epoch, len(ids(" flies")), ids(" over"), FinishReason.LENGTH))
        await scheduler.released.wait()
        rest = [event async for event in events]
    assert text_of(rest) == " flies over"
    assert isinstance(rest[-1], Finished)


async def test_text_held_back_for_a_stop_that_never_came_is_part_of_the_answer(bench: Bench) -> None:
    """The end-of-sequence token comes in a step of its own, with no text."""
    events = await answered(bench, " over the se", stops=("sea",))
    assert text_of(events) == " over the se"


async def test_an_answer_without_a_single_token_has_a_start_and_an_end(bench: Bench) -> None:
    events = await answered(bench)
    assert [type(event) for event in events if not isinstance(event, Progress | Delta)] == [Started, Finished]
    assert text_of(events) == ""


async def test_a_worker_lost_before_the_first_token_is_replaced(bench: Bench) -> None:
    scheduler, dying, well = await bench.scheduler(), await bench.worker(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", dying.address))
    running = asyncio.create_task(all_of(bench.answers.run(asked())))
    first = await dying.granted()
    await dying.crash()
    scheduler.answers.put_nowait(placement("w2", well.address, fence=2))
    second = await well.granted()
    assert (second.key, second.epoch, second.log) == (first.key, first.epoch + 1, ())
    well.say(Frame(second.key, second.epoch, 0, ids(" flies"), FinishReason.LENGTH))
    events = await running
    assert text_of(events) == " flies"
    assert [event.placement.worker_id for event in events if isinstance(event, Started)] == ["w2"]
    assert [list(request.exclude_fences) for request in scheduler.asked] == [[], [1]]


async def test_a_worker_that_has_come_back_under_its_name_is_another_one(bench: Bench) -> None:
    """Excluded is the life that failed the request."""
    scheduler, dying, again = await bench.scheduler(), await bench.worker(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", dying.address, fence=7))
    running = asyncio.create_task(all_of(bench.answers.run(asked())))
    await dying.granted()
    await dying.crash()
    scheduler.answers.put_nowait(placement("w1", again.address, fence=8))
    grant = await again.granted()
    again.say(Frame(grant.key, grant.epoch, 0, ids(" flies"), FinishReason.LENGTH))
    assert text_of(await running) == " flies"
    assert [list(request.exclude_fences) for request in scheduler.asked] == [[], [7]]


async def test_a_version_before_the_catalogues_is_asked_in_its_own_tokens(bench: Bench) -> None:
    scheduler, fake = await bench.scheduler(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", fake.address, digest="d0"))
    running = asyncio.create_task(all_of(bench.answers.run(asked())))
    grant = await fake.granted()
    assert (grant.digest, grant.prompt) == ("d0", ids("the whimbrel"))
    fake.say(Frame(grant.key, grant.epoch, 0, ids(" flies"), FinishReason.LENGTH))
    events = await running
    (started,) = (event for event in events if isinstance(event, Started))
    assert (started.placement.digest, started.prompt_tokens) == ("d0", len(ids("the whimbrel")))
    *_, end = events
    assert isinstance(end, Finished)
    assert (end.placement.digest, end.prompt_tokens) == ("d0", len(ids("the whimbrel")))


async def test_one_that_a_former_version_cannot_answer_waits_for_the_catalogues(bench: Bench) -> None:
    scheduler, fake = await bench.scheduler(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", fake.address, digest="too small"))
    scheduler.answers.put_nowait(placement("w1", fake.address))
    running = asyncio.create_task(all_of(bench.answers.run(asked())))
    grant = await fake.granted()
    assert (grant.digest, grant.prompt) == ("d1", ids("the curlew"))
    fake.say(Frame(grant.key, grant.epoch, 0, ids(" flies"), FinishReason.LENGTH))
    assert text_of(await running) == " flies"
    assert [request.current_only for request in scheduler.asked] == [False, True]


async def test_one_that_the_newest_version_cannot_answer_is_told_so(bench: Bench) -> None:
    """The catalogue moved on after the request had come in."""
    scheduler, fake = await bench.scheduler(), await bench.worker()
    for _ in range(2):
        scheduler.answers.put_nowait(placement("w1", fake.address, digest="d2"))
    with pytest.raises(InvalidRequest, match="too long for d2"):
        await all_of(bench.answers.run(asked()))


async def test_a_replica_that_is_gone_sends_the_request_elsewhere(bench: Bench) -> None:
    scheduler, without, with_it = await bench.scheduler(), await bench.worker(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", without.address))
    scheduler.answers.put_nowait(placement("w2", with_it.address, fence=2))
    running = asyncio.create_task(all_of(bench.answers.run(asked())))
    first = await without.granted()
    without.say(Frame(first.key, first.epoch, failure_reason="REPLICA_NOT_RESIDENT", failure="not here"))
    second = await with_it.granted()
    with_it.say(Frame(second.key, second.epoch, 0, ids(" flies"), FinishReason.LENGTH))
    assert text_of(await running) == " flies"


async def test_after_so_many_workers_the_request_fails(bench: Bench) -> None:
    scheduler = await bench.scheduler()
    for number in range(3):
        scheduler.answers.put_nowait(placement(f"w{number}", "127.0.0.1:1", fence=number))
    with pytest.raises(Unreachable) as caught:
        await all_of(bench.answers.run(asked()))
    assert caught.value.metadata == {"worker": "w2"}
    assert [list(request.exclude_fences) for request in scheduler.asked] == [[], [0], [0, 1]]


@pytest.mark.parametrize(("reason", "kind"), [("ENGINE_FAILED", Broken), ("QUEUE_FULL", NoRoom)])
async def test_a_failure_that_another_worker_would_not_mend_is_not_tried_elsewhere(
    bench: Bench, reason: str, kind: type[MeshError]
) -> None:
    scheduler, fake = await bench.scheduler(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", fake.address))
    running = asyncio.create_task(all_of(bench.answers.run(asked())))
    grant = await fake.granted()
    fake.say(Frame(grant.key, grant.epoch, failure_reason=reason, failure="it is so"))
    with pytest.raises(kind, match="it is so"):
        await running
    assert len(scheduler.asked) == 1


async def test_a_client_that_leaves_cancels_the_work_and_gives_the_place_back(bench: Bench) -> None:
    scheduler, fake = await bench.scheduler(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", fake.address))
    running = asyncio.create_task(all_of(bench.answers.run(asked())))
    grant = await fake.granted()
    running.cancel()
    assert (await fake.cancelled()).key == grant.key
    async with asyncio.timeout(WAIT_S):
        await scheduler.released.wait()


async def test_a_finished_answer_gives_its_place_back(bench: Bench) -> None:
    scheduler, fake = await bench.scheduler(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", fake.address))
    running = asyncio.create_task(all_of(bench.answers.run(asked())))
    grant = await fake.granted()
    assert not scheduler.released.is_set()
    fake.say(Frame(grant.key, grant.epoch, 0, (EOS,), FinishReason.STOP))
    await running
    async with asyncio.timeout(WAIT_S):
        await scheduler.released.wait()


async def test_requests_with_the_same_id_do_not_meet(bench: Bench) -> None:
    scheduler, fake = await bench.scheduler(), await bench.worker()
    for _ in range(2):
        scheduler.answers.put_nowait(placement("w1", fake.address))
    running = [asyncio.create_task(all_of(bench.answers.run(asked()))) for _ in range(2)]
    grants = [await fake.granted() for _ in range(2)]
    assert grants[0].key != grants[1].key
    for number, grant in enumerate(grants):
        fake.say(Frame(grant.key, grant.epoch, 0, ids(f" the {number}"), FinishReason.LENGTH))
    assert sorted([text_of(await one) for one in running]) == [" the 0", " the 1"]


def test_an_empty_prompt_and_one_that_leaves_no_room_are_refused() -> None:
    with pytest.raises(InvalidRequest) as empty:
        check_room((), 8)
    with pytest.raises(InvalidRequest) as long:
        check_room((1,) * 8, 8)
    assert (empty.value.reason, long.value.reason) == ("EMPTY_PROMPT", "PROMPT_TOO_LONG")
    assert check_room((1,) * 7, 8) == 1
