"""Places: the scheduler that leads is asked, through its deaths and successions."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from mesh.clients.holding import Holding
from mesh.clients.service_wire import service_from
from mesh.errors import MeshError, NoRoom, Unreachable
from mesh.facts import Kind, Member, Priority
from mesh.requests import Phase, Placement, Progress, ServiceClass, Wish
from mesh.state.leases import Membership
from tests.services.gateway.conftest import Bench
from tests.services.gateway.edges import WAIT_S, FakeScheduler, placement

HERE = placement("w1", "here:1")
QUEUED = Progress(Phase.QUEUED, position=1)


def assign(bench: Bench, *excluded: int) -> AsyncGenerator[Progress | Placement, None]:
    """Asks for a place."""
    return bench.places.assign(Wish("r", "m", frozenset(excluded)))


async def placed(events: AsyncGenerator[Progress | Placement, None]) -> list[Progress | Placement]:
    """All that is said, up to the placement."""
    said: list[Progress | Placement] = []
    async with asyncio.timeout(WAIT_S):
        async for event in events:
            said.append(event)
            if isinstance(event, Placement):
                return said
    raise AssertionError("no placement")


async def came(fake: FakeScheduler) -> None:
    """Waits until a scheduler is asked."""
    async with asyncio.timeout(WAIT_S):
        await fake.came.wait()


async def test_progress_comes_through_and_then_the_place(bench: Bench) -> None:
    fake = await bench.scheduler()
    fake.answers.put_nowait(HERE)
    async with aclosing(assign(bench, 9, 8)) as events:
        assert await placed(events) == [QUEUED, HERE]
    (asked,) = fake.asked
    assert (asked.request_id, asked.model, list(asked.exclude_fences)) == ("r", "m", [8, 9])
    assert not asked.current_only


async def test_the_place_is_held_until_the_iteration_is_closed(bench: Bench) -> None:
    fake = await bench.scheduler()
    fake.answers.put_nowait(HERE)
    async with aclosing(assign(bench)) as events:
        await placed(events)
        await asyncio.sleep(0.05)
        assert not fake.released.is_set()
    async with asyncio.timeout(WAIT_S):
        await fake.released.wait()


async def test_a_request_waits_for_a_scheduler_to_lead(bench: Bench) -> None:
    async with aclosing(assign(bench)) as events:
        placing = asyncio.create_task(placed(events))
        await asyncio.sleep(0)
        fake = await bench.scheduler()
        fake.answers.put_nowait(HERE)
        assert (await placing)[-1] == HERE


async def test_a_scheduler_that_dies_while_a_request_waits_costs_it_nothing_but_time(bench: Bench) -> None:
    dying = await bench.scheduler()
    async with aclosing(assign(bench)) as events:
        placing = asyncio.create_task(placed(events))
        await came(dying)
        await dying.crash()
        successor = await bench.scheduler()
        successor.answers.put_nowait(HERE)
        said = await placing
    assert said[-1] == HERE
    assert Progress(Phase.QUEUED) in said


async def test_a_scheduler_that_no_longer_leads_sends_the_request_to_its_successor(bench: Bench) -> None:
    former = await bench.scheduler()
    former.answers.put_nowait(Unreachable("stands by", reason="NOT_LEADER"))
    async with aclosing(assign(bench)) as events:
        placing = asyncio.create_task(placed(events))
        await came(former)
        successor = await bench.scheduler()
        successor.answers.put_nowait(HERE)
        assert (await placing)[-1] == HERE


async def test_a_scheduler_that_dies_after_it_has_placed_leaves_the_request_alone(bench: Bench) -> None:
    fake = await bench.scheduler()
    fake.answers.put_nowait(HERE)
    async with aclosing(assign(bench)) as events:
        await placed(events)
        await fake.crash()


@pytest.mark.parametrize(
    "refusal",
    [
        NoRoom("full", reason="QUEUE_FULL", retry_after_s=5.0),
        Unreachable("no store", reason="CHECKPOINT_UNREACHABLE", metadata={"model": "m"}),
    ],
)
async def test_a_refusal_comes_through_as_it_is_and_is_not_tried_again(bench: Bench, refusal: MeshError) -> None:
    fake = await bench.scheduler()
    fake.answers.put_nowait(refusal)
    with pytest.raises(type(refusal)) as caught:
        await placed(assign(bench))
    got = caught.value
    assert (got.message, got.reason, got.retry_after_s) == (refusal.message, refusal.reason, refusal.retry_after_s)
    assert len(fake.asked) == 1


async def test_without_any_scheduler_the_request_gives_up_after_its_hold(bench: Bench) -> None:
    impatient = bench.patient(0.05)
    with pytest.raises(Unreachable) as caught:
        await placed(impatient.assign(Wish("r", "m")))
    assert caught.value.reason == "NO_SCHEDULER"
    assert caught.value.retry_after_s is not None


async def test_with_a_scheduler_that_stays_dead_the_request_gives_up_after_its_hold(bench: Bench) -> None:
    dead = await bench.scheduler()
    await dead.crash()
    impatient = bench.patient(0.05)
    with pytest.raises(Unreachable) as caught:
        await placed(impatient.assign(Wish("r", "m")))
    assert caught.value.reason == "UNREACHABLE"


async def test_the_next_scheduler_is_asked_for_what_is_left_of_the_time_to_the_first_token(bench: Bench) -> None:
    dying = await bench.scheduler()
    service = ServiceClass("waders", Priority.HIGH, first_token_s=60.0)
    async with aclosing(bench.places.assign(Wish("r", "m", service=service, prompt_tokens=7))) as events:
        placing = asyncio.create_task(placed(events))
        await came(dying)
        await dying.crash()
        successor = await bench.scheduler()
        successor.answers.put_nowait(HERE)
        await placing
    first, *_, last = (service_from(one.service_class) for one in (*dying.asked, *successor.asked))
    assert (last.tenant, last.priority, successor.asked[-1].prompt_tokens) == ("waders", Priority.HIGH, 7)
    assert first.first_token_s is not None
    assert last.first_token_s is not None
    assert 0.0 < last.first_token_s < first.first_token_s <= 60.0


async def test_a_scheduler_that_says_nothing_is_left_when_another_leads(bench: Bench) -> None:
    """Frozen, or behind a partition: no stream breaks."""
    frozen = await bench.scheduler()
    async with aclosing(assign(bench)) as events:
        placing = asyncio.create_task(placed(events))
        await came(frozen)
        successor = await bench.scheduler()
        successor.answers.put_nowait(HERE)
        assert (await placing)[-1] == HERE
        assert successor.asked[0].waited.ToNanoseconds() > 0


async def test_a_scheduler_that_comes_to_lead_is_told_of_the_places_that_another_gave_until_they_end(
    bench: Bench,
) -> None:
    former = await bench.scheduler()
    assert await former.hears() == Holding("gateway.7", (), ())
    former.answers.put_nowait(HERE)
    async with aclosing(assign(bench)) as events:
        await placed(events)
        await former.crash()
        successor = await bench.scheduler()
        told = await successor.hears()
        (held,) = told.held
        assert (told.gateway_id, held.worker_id, held.fence, held.model, held.digest) == (
            "gateway.7", HERE.worker_id, HERE.fence, "m", HERE.digest,
        )  # fmt: skip
    assert await successor.hears() == Holding("", (), (held.number,))


async def test_a_place_whose_scheduler_lets_go_of_it_is_told_to_the_one_that_leads(bench: Bench) -> None:
    """As after a leader that was told to end: its successor may be known before the stream has ended."""
    former = await bench.scheduler()
    former.answers.put_nowait(HERE)
    async with aclosing(assign(bench)) as events:
        await placed(events)
        successor = await bench.scheduler()
        assert await successor.hears() == Holding("gateway.7", (), ())
        await former.crash()
        (held,) = (await successor.hears()).held
        assert held.worker_id == HERE.worker_id


async def test_a_place_that_was_given_back_is_told_to_nobody(bench: Bench) -> None:
    former = await bench.scheduler()
    former.answers.put_nowait(HERE)
    async with aclosing(assign(bench)) as events:
        await placed(events)
    async with asyncio.timeout(WAIT_S):
        await former.released.wait()
    successor = await bench.scheduler()
    assert await successor.hears() == Holding("gateway.7", (), ())


async def test_a_place_whose_reader_is_cancelled_is_told_to_nobody(bench: Bench) -> None:
    """As every request's is that has its answer: somebody reads on, for moves."""
    fake = await bench.scheduler()
    assert await fake.hears() == Holding("gateway.7", (), ())
    for _ in range(2):
        fake.answers.put_nowait(HERE)
        events = assign(bench)
        await placed(events)
        reading = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)  # it reads
        reading.cancel()
        await asyncio.wait([reading])
    fake.answers.put_nowait(HERE)
    async with aclosing(assign(bench)) as events:
        await placed(events)  # what the line had to say came before
        assert fake.told.empty()


async def test_a_request_waits_for_the_store_that_had_its_models_checkpoint(bench: Bench) -> None:
    await bench.catalogued("m")
    fake = await bench.scheduler()
    fake.answers.put_nowait(Unreachable("no store", reason="CHECKPOINT_UNREACHABLE"))
    async with aclosing(assign(bench)) as events:
        placing = asyncio.create_task(placed(events))
        await came(fake)
        fake.answers.put_nowait(HERE)
        async with Membership(bench.state, Member(Kind.STORE, "s1", "n1", "s:1"), lease_s=60.0):
            assert (await placing)[-1] == HERE


async def test_a_request_whose_models_checkpoint_stays_away_is_refused_in_the_end(bench: Bench) -> None:
    await bench.catalogued("m")
    fake, gone = await bench.scheduler(), Unreachable("no store", reason="CHECKPOINT_UNREACHABLE")
    for _ in range(3):
        fake.answers.put_nowait(gone)
    with pytest.raises(Unreachable) as refused:
        await placed(bench.patient(0.05).assign(Wish("r", "m")))
    assert refused.value.reason == "CHECKPOINT_UNREACHABLE"
