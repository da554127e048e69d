"""Answers whose worker is lost midway: they go on at another, from the log, and a client reads one stream."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from mesh.clients.worker import WorkerClient
from mesh.errors import MeshError, NoRoom, Unreachable, Unsuitable
from mesh.facts import Kind, Member, NumericsLevel, ReplicaFacts, ReplicaState, WorkerFacts
from mesh.requests import FinishReason, Frame, Grant, MoveKind, Phase, Progress, ServiceClass
from mesh.state.leases import Membership
from services.gateway.answer import Event, Finished, Started
from services.gateway.asked import Asked
from services.gateway.lapsed import Lapsed
from services.gateway.strand import Delta
from tests.services.gateway.conftest import Bench
from tests.services.gateway.edges import WAIT_S, FakeScheduler, FakeWorker, placement
from tests.services.gateway.test_answer import EOS, all_of, asked, ids, text_of
from tests.services.gateway.test_several_answers import of, three

Asking = asyncio.Task[list[Event]]


def ended(events: list[Event]) -> Finished:
    """The one end."""
    (end,) = [event for event in events if isinstance(event, Finished)]
    return end


async def begun(bench: Bench, request: Asked, text: str) -> tuple[FakeScheduler, FakeWorker, Asking, Grant]:
    """An answer of which the client has had a text, from w1."""
    scheduler, fake = await bench.scheduler(), await bench.worker()
    scheduler.answers.put_nowait(placement("w1", fake.address))
    heard: asyncio.Queue[Event] = asyncio.Queue()

    async def listen() -> list[Event]:
        events: list[Event] = []
        async for event in bench.answers.run(request):
            events.append(event)
            heard.put_nowait(event)
        return events

    running = asyncio.create_task(listen())
    grant = await fake.granted()
    fake.say(Frame(grant.key, grant.epoch, 0, ids(text)))
    async with asyncio.timeout(WAIT_S):
        while not isinstance(await heard.get(), Delta):
            pass
    return scheduler, fake, running, grant


async def resumed(bench: Bench, scheduler: FakeScheduler, name: str, fence: int) -> tuple[FakeWorker, Grant]:
    """The next worker, which has been granted it."""
    fake = await bench.worker()
    scheduler.answers.put_nowait(placement(name, fake.address, fence))
    return fake, await fake.granted()


async def test_an_answer_goes_on_at_another_worker_from_its_log(bench: Bench) -> None:
    scheduler, dying, running, first = await begun(bench, asked(), " flies over")
    await dying.crash()
    well, second = await resumed(bench, scheduler, "w2", fence=2)
    assert (second.key, second.epoch, second.log) == (first.key, first.epoch + 1, ids(" flies over"))
    assert (second.prompt, second.sampling, second.digest) == (first.prompt, first.sampling, first.digest)
    well.say(Frame(second.key, second.epoch, len(second.log), ids(" the sea")))
    well.say(Frame(second.key, second.epoch, len(second.log) + len(ids(" the sea")), (EOS,), FinishReason.STOP))
    events = await running
    assert text_of(events) == " flies over the sea"
    deltas = [event for event in events if isinstance(event, Delta)]
    assert [delta.seq for delta in deltas] == [sum(len(d.tokens) for d in deltas[:n]) for n in range(len(deltas))]
    assert len([event for event in events if isinstance(event, Started | Finished)]) == 2


async def test_the_end_tells_of_the_workers(bench: Bench) -> None:
    scheduler, dying, running, _ = await begun(bench, asked(), " flies")
    await dying.crash()
    well, grant = await resumed(bench, scheduler, "w2", fence=2)
    well.say(Frame(grant.key, grant.epoch, len(grant.log), (EOS,), FinishReason.STOP))
    end = ended(await running)
    (move,) = end.moves
    assert (move.index, move.from_worker_id, move.to_worker_id) == (0, "w1", "w2")
    assert (move.reason, move.kind, move.tokens) == ("worker lost", MoveKind.REBUILT, len(ids(" flies")))
    assert move.gap_s > 0
    assert not move.exact  # nobody knows these replicas' numerics
    assert end.placement.worker_id == "w2"
    assert end.completion_tokens == len(ids(" flies")) + 1


async def test_a_place_is_asked_for_at_the_version_that_began_and_with_what_there_is_to_compute(bench: Bench) -> None:
    hurried = replace(asked(), service=ServiceClass(first_token_s=0.5))
    scheduler, dying, running, grant = await begun(bench, hurried, " flies")
    await dying.crash()
    well, again = await resumed(bench, scheduler, "w2", fence=2)
    first, second = scheduler.asked
    assert (first.digest, first.prompt_tokens) == ("", len(grant.prompt))
    assert (second.digest, second.prompt_tokens) == ("d1", len(grant.prompt) + len(ids(" flies")))
    assert (list(first.exclude_fences), list(second.exclude_fences)) == ([], [1])
    assert first.service_class.HasField("first_token_within")
    assert not second.service_class.HasField("first_token_within")  # that token has come
    well.say(Frame(again.key, again.epoch, len(again.log), (EOS,), FinishReason.STOP))
    await running


async def test_a_client_is_told_what_its_answer_waits_for(bench: Bench) -> None:
    scheduler, dying, running, _ = await begun(bench, asked(), " flies")
    await dying.crash()
    well, grant = await resumed(bench, scheduler, "w2", fence=2)
    well.say(Frame(grant.key, grant.epoch, len(grant.log), (EOS,), FinishReason.STOP))
    events = await running
    began = next(n for n, event in enumerate(events) if isinstance(event, Delta))
    waited = [event.phase for event in events[began:] if isinstance(event, Progress)]
    assert waited == [Phase.QUEUED, Phase.QUEUED, Phase.READY]


async def test_a_stop_text_may_lie_across_two_workers(bench: Bench) -> None:
    scheduler, dying, running, _ = await begun(bench, asked("the sea"), " flies over the")
    await dying.crash()
    well, grant = await resumed(bench, scheduler, "w2", fence=2)
    assert grant.log == ids(" flies over the")
    well.say(Frame(grant.key, grant.epoch, len(grant.log), ids(" sea and the hill")))
    events = await running
    assert text_of(events) == " flies over "
    assert [answer.stop for answer in ended(events).answers] == ["the sea"]
    assert (await well.cancelled()).epoch == grant.epoch


async def test_what_a_lost_worker_said_last_is_kept(bench: Bench) -> None:
    """Tokens and the end of the line arrive together."""
    scheduler, dying, running, first = await begun(bench, asked(), " flies")
    dying.say(Frame(first.key, first.epoch, len(ids(" flies")), ids(" over")))
    dying.hang_up()
    well, grant = await resumed(bench, scheduler, "w2", fence=2)
    assert grant.log == (*ids(" flies"), *ids(" over"))
    well.say(Frame(grant.key, grant.epoch, len(grant.log), (EOS,), FinishReason.STOP))
    assert text_of(await running) == " flies over"


async def test_all_answers_of_a_request_go_on_but_those_that_have_ended(bench: Bench) -> None:
    scheduler, dying, running, first = await begun(bench, three(), " a")
    second, third = await dying.granted(), await dying.granted()
    dying.say(Frame(second.key, 1, 0, ids(" b"), FinishReason.LENGTH), Frame(first.key, 1, len(ids(" a")), ids(" c")))
    dying.hang_up()
    well, one = await resumed(bench, scheduler, "w2", fence=2)
    assert (one.key, one.log) == (first.key, (*ids(" a"), *ids(" c")))
    well.say(Frame(one.key, one.epoch, len(one.log), ids(" d"), FinishReason.LENGTH))
    three_again = await well.granted()
    assert (three_again.key, three_again.log) == (third.key, ())
    well.say(Frame(three_again.key, three_again.epoch, 0, ids(" e"), FinishReason.LENGTH))
    events = await running
    assert [text_of(of(events, index)) for index in range(3)] == [" a c d", " b", " e"]
    assert [move.index for move in ended(events).moves] == [0]  # the third had not begun


async def test_an_answer_outlives_worker_after_worker_for_as_long_as_it_grows(bench: Bench) -> None:
    scheduler, fake, running, grant = await begun(bench, asked(), " flies")
    fake.hang_up()
    for number in range(2, 8):
        fake, grant = await resumed(bench, scheduler, f"w{number}", fence=number)
        fake.say(Frame(grant.key, grant.epoch, len(grant.log), grant.prompt[:1] * 5))
        fake.hang_up()
    last, grant = await resumed(bench, scheduler, "w8", fence=8)
    last.say(Frame(grant.key, grant.epoch, len(grant.log), (EOS,), FinishReason.STOP))
    end = ended(await running)
    assert [move.to_worker_id for move in end.moves] == [f"w{number}" for number in range(2, 9)]
    assert end.completion_tokens == len(ids(" flies")) + 6 * 5 + 1


async def test_one_whose_workers_die_at_the_same_token_is_tried_no_more(bench: Bench) -> None:
    scheduler, fake, running, _ = await begun(bench, asked(), " flies")
    fake.hang_up()
    second, _ = await resumed(bench, scheduler, "w2", fence=2)
    second.hang_up()
    with pytest.raises(Unreachable) as caught:
        await running
    assert (caught.value.reason, caught.value.metadata) == ("POISONOUS", {"worker": "w2"})
    assert len(scheduler.asked) == 2


async def test_workers_that_are_not_there_are_tried_only_so_often(bench: Bench) -> None:
    scheduler, fake, running, _ = await begun(bench, asked(), " flies")
    for number in (2, 3):
        scheduler.answers.put_nowait(placement(f"w{number}", "127.0.0.1:1", fence=number))
    fake.hang_up()
    with pytest.raises(Unreachable) as caught:
        await running
    assert (caught.value.reason, caught.value.metadata) == ("WORKER_UNREACHABLE", {"worker": "w3"})
    assert caught.value.retry_after_s
    assert [list(request.exclude_fences) for request in scheduler.asked] == [[], [1], [1, 2]]


async def test_another_version_cannot_go_on_with_an_answer(bench: Bench) -> None:
    """Nor is it asked to: its tokens are others."""
    scheduler, fake, running, _ = await begun(bench, asked(), " flies")
    other = await bench.worker()
    scheduler.answers.put_nowait(placement("w2", other.address, fence=2, digest="d0"))
    fake.hang_up()
    with pytest.raises(Unsuitable) as caught:
        await running
    assert caught.value.reason == "VERSION_GONE"
    assert other.commands.empty()


async def test_a_scheduler_that_finds_no_place_ends_the_answer_with_its_own_words(bench: Bench) -> None:
    scheduler, fake, running, _ = await begun(bench, asked(), " flies")
    scheduler.answers.put_nowait(NoRoom("no replica of this version is left", reason="VERSION_GONE"))
    fake.hang_up()
    with pytest.raises(MeshError, match="no replica of this version is left"):
        await running


def member(name: str, fake: FakeWorker, fingerprint: str) -> Member:
    """A worker with a replica of what is asked for."""
    level = NumericsLevel.PATH_INVARIANT if fingerprint else NumericsLevel.FAST
    replica = ReplicaFacts("m", "d1", ReplicaState.READY, 1, numerics=level, fingerprint=fingerprint)
    return Member(Kind.WORKER, name, "n", fake.address, worker=WorkerFacts("host", 1, 1, 8, (replica,)))


@pytest.mark.parametrize(("one", "other", "exact"), [("f", "f", True), ("f", "g", False), ("", "", False)])
async def test_what_comes_is_exact_between_equal_fingerprints(
    bench: Bench, one: str, other: str, *, exact: bool
) -> None:
    scheduler, dying, well = await bench.scheduler(), await bench.worker(), await bench.worker()
    async with AsyncExitStack() as stack:
        members = [member("w1", dying, one), member("w2", well, other)]
        joined = [await stack.enter_async_context(Membership(bench.state, who, 60.0)) for who in members]
        fences = [membership.member.fence for membership in joined]
        assert await bench.mirror.until(lambda facts: len(facts.of_kind(Kind.WORKER)) == 2, WAIT_S)
        scheduler.answers.put_nowait(placement("w1", dying.address, fences[0]))
        scheduler.answers.put_nowait(placement("w2", well.address, fences[1]))
        running = asyncio.create_task(all_of(bench.answers.run(asked())))
        grant = await dying.granted()
        dying.say(Frame(grant.key, grant.epoch, 0, ids(" flies")))
        dying.hang_up()
        again = await well.granted()
        well.say(Frame(again.key, again.epoch, len(again.log), (EOS,), FinishReason.STOP))
        assert [move.exact for move in ended(await running).moves] == [exact]


async def watched(bench: Bench, stack: AsyncExitStack) -> None:
    """Has leases watched until the stack is closed."""
    group = await stack.enter_async_context(asyncio.TaskGroup())
    watch = group.create_task(Lapsed(bench.mirror, bench.lines, WorkerClient(bench.channels)).watch())
    stack.callback(watch.cancel)


async def test_a_worker_that_stands_still_is_lost_when_its_lease_lapses_and_what_it_says_later_is_not_heard(
    bench: Bench,
) -> None:
    async with AsyncExitStack() as stack:
        await watched(bench, stack)
        scheduler, frozen = await bench.scheduler(), await bench.worker()
        membership = await stack.enter_async_context(AsyncExitStack())
        joined = await membership.enter_async_context(Membership(bench.state, member("w1", frozen, ""), 60.0))
        fence = joined.member.fence
        assert await bench.mirror.until(lambda facts: bool(facts.of_kind(Kind.WORKER)), WAIT_S)
        scheduler.answers.put_nowait(placement("w1", frozen.address, fence))
        running = asyncio.create_task(all_of(bench.answers.run(asked())))
        first = await frozen.granted()
        frozen.say(Frame(first.key, first.epoch, 0, ids(" flies")))
        frozen.frozen = True
        await membership.aclose()
        well, second = await resumed(bench, scheduler, "w2", fence=fence + 1)
        assert (second.epoch, second.log) == (first.epoch + 1, ids(" flies"))
        frozen.say(Frame(first.key, first.epoch, len(second.log), ids(" under"), FinishReason.STOP))
        well.say(Frame(second.key, second.epoch, len(second.log), ids(" over"), FinishReason.LENGTH))
        assert text_of(await running) == " flies over"


async def test_a_worker_that_answers_is_not_lost_for_want_of_a_lease(bench: Bench) -> None:
    async with AsyncExitStack() as stack:
        await watched(bench, stack)
        scheduler, fake = await bench.scheduler(), await bench.worker()
        async with Membership(bench.state, member("w1", fake, ""), 60.0) as joined:
            scheduler.answers.put_nowait(placement("w1", fake.address, joined.member.fence))
            running = asyncio.create_task(all_of(bench.answers.run(asked())))
            grant = await fake.granted()
        async with asyncio.timeout(WAIT_S):
            await fake.looked_at.wait()
        fake.say(Frame(grant.key, grant.epoch, 0, ids(" flies"), FinishReason.LENGTH))
        end = ended(await running)
        assert (end.placement.worker_id, end.moves) == ("w1", ())
