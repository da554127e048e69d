"""Loads that share a disk wait for their turn, by a turned clock."""

import asyncio

import pytest

from mesh.clock import HandClock
from policy.books import Books
from policy.haul import Haul
from policy.knobs import Knobs
from policy.view import Spot
from services.scheduler.turns import Turns

KNOBS = Knobs()
FIRST, SECOND = Spot("w1", "a", "a@1"), Spot("w2", "b", "b@1")


@pytest.fixture
def turns() -> Turns:
    books, clock = Books(), HandClock()
    for spot in (FIRST, SECOND):
        books.loads.begin(spot, Haul(spot.worker_id, "n1", "Llama", disk_bytes=100), clock.now(), books.rates, KNOBS)
    return Turns(books, clock, KNOBS)


async def test_a_load_begins_once_the_bytes_before_it_have_come(turns: Turns) -> None:
    await turns.of(FIRST)
    second = asyncio.create_task(turns.of(SECOND))
    turns.look()
    await asyncio.sleep(0)
    assert not second.done()
    turns.books.loads.progressed(FIRST, 100, turns.clock.now())
    turns.look()
    await second
    assert not turns.waiting


async def test_a_load_that_has_failed_delays_nobody(turns: Turns) -> None:
    second = asyncio.create_task(turns.of(SECOND))
    await asyncio.sleep(0)
    turns.books.loads.end(FIRST)
    turns.look()
    await second


async def test_one_that_is_given_up_while_it_waits_leaves_nothing(turns: Turns) -> None:
    second = asyncio.create_task(turns.of(SECOND))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    assert not turns.waiting
