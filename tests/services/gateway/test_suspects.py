"""Two requests that lose the same workers: which of them those died of is found out one by one."""

import asyncio
from collections.abc import Sequence

import pytest

from mesh.errors import Unreachable
from mesh.requests import FinishReason, Frame, Grant
from services.gateway.retries import NEAR_TOKENS
from tests.services.gateway.conftest import Bench
from tests.services.gateway.edges import FakeScheduler, FakeWorker, placement
from tests.services.gateway.test_answer import EOS, all_of, asked, ids, text_of
from tests.services.gateway.test_resuming import Asking

BEGUN = ids(" flies")
MORE = BEGUN[:1] * (NEAR_TOKENS + 1)


async def at(bench: Bench, scheduler: FakeScheduler, number: int, places: int = 1) -> FakeWorker:
    """Worker `number`, at which the scheduler has so many places."""
    fake = await bench.worker()
    for _ in range(places):
        scheduler.answers.put_nowait(placement(f"w{number}", fake.address, fence=number))
    return fake


async def both_lost(bench: Bench, *, between: int = 0) -> tuple[FakeScheduler, list[Asking], list[Grant]]:
    """Two requests that have lost two workers together, and what they were granted there; between the two, the second
    one has come further by so many tokens."""
    scheduler = await bench.scheduler()
    first = await at(bench, scheduler, 1, places=2)
    running = [asyncio.create_task(all_of(bench.answers.run(asked()))) for _ in range(2)]
    for grant in [await first.granted() for _ in running]:
        first.say(Frame(grant.key, grant.epoch, 0, BEGUN))
    first.hang_up()
    second = await at(bench, scheduler, 2, places=2)
    grants = sorted([await second.granted() for _ in running], key=lambda grant: grant.key)
    assert [grant.log for grant in grants] == [BEGUN, BEGUN]
    if between:
        second.say(Frame(grants[1].key, grants[1].epoch, len(BEGUN), MORE[:between]))
    second.hang_up()
    return scheduler, running, grants


def end(fake: FakeWorker, grant: Grant) -> None:
    """Says the end of an answer."""
    fake.say(Frame(grant.key, grant.epoch, len(grant.log), (EOS,), FinishReason.STOP))


def of(grant: Grant, grants: Sequence[Grant], running: Sequence[Asking]) -> tuple[Asking, Asking]:
    """The request that has been granted, and the other one."""
    here = [one.key for one in grants].index(grant.key)
    return running[here], running[1 - here]


async def test_each_is_tried_alone_and_the_one_that_loses_a_third_worker_is_the_cause(bench: Bench) -> None:
    scheduler, running, grants = await both_lost(bench)
    third, fourth = await at(bench, scheduler, 3), await at(bench, scheduler, 4)
    grant = await third.granted()
    poisonous, bystander = of(grant, grants, running)
    assert len(scheduler.asked) == 5  # the other waits
    third.hang_up()
    with pytest.raises(Unreachable, match="3 workers") as caught:
        await poisonous
    assert caught.value.reason == "POISONOUS"
    end(fourth, await fourth.granted())
    assert text_of(await bystander) == " flies"


async def test_one_that_comes_further_is_cleared_and_the_next_is_tried_beside_it(bench: Bench) -> None:
    scheduler, running, grants = await both_lost(bench)
    third = await at(bench, scheduler, 3, places=2)
    grant = await third.granted()
    third.say(Frame(grant.key, grant.epoch, len(grant.log), MORE[:-1]))
    assert len(scheduler.asked) == 5
    third.say(Frame(grant.key, grant.epoch, len(grant.log) + len(MORE) - 1, MORE[-1:]))
    other = await third.granted()
    assert other.key != grant.key
    third.hang_up()  # of which only the one that got nowhere can be the cause
    poisonous, cleared = of(other, grants, running)
    with pytest.raises(Unreachable, match="3 workers"):
        await poisonous
    fourth = await at(bench, scheduler, 4)
    end(fourth, await fourth.granted())
    assert text_of(await cleared)


async def test_one_that_came_further_between_the_deaths_is_no_company(bench: Bench) -> None:
    scheduler, (poisonous, well), _ = await both_lost(bench, between=len(MORE))
    with pytest.raises(Unreachable, match="2 workers"):
        await poisonous
    third = await at(bench, scheduler, 3)
    end(third, await third.granted())
    assert text_of(await well)
