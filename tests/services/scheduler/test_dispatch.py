"""How long the scheduler takes over a warm request, as it counts that itself."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from mesh.errors import Unreachable
from mesh.requests import Phase, Placement, Wish
from mesh.state.connection import State
from tests.services.scheduler.conftest import KNOBS, Bench, led, ready


def counted() -> float:
    """Requests that found a place at the first look."""
    waits, works = (
        REGISTRY.get_sample_value(f"whimbrel_dispatch_{name}_count") for name in ("seconds", "processor_seconds")
    )
    assert waits == works
    return waits or 0.0


async def test_those_that_find_a_place_at_the_first_look_count_and_those_that_wait_do_not(bench: Bench) -> None:
    await bench.worker(slots=1)
    cold, before = bench.assign(), counted()
    await cold.placed()
    assert counted() == before
    queued = bench.assign()
    await queued.told(lambda progress: progress.phase is Phase.QUEUED)
    reading = asyncio.create_task(queued.placed())
    await cold.close()
    await reading
    assert counted() == before
    await queued.close()
    await bench.idle()
    await bench.assign().placed()
    assert counted() == before + 1


async def test_one_that_comes_has_its_place_before_anything_else_runs(bench: Bench) -> None:
    await ready(bench, "w1")
    await bench.assign().placed()  # so it has taken over
    with bench.scheduler.room.ticket(Wish("r", "m")) as ticket:
        bench.scheduler.look(ticket)
        assert isinstance(ticket.events.get_nowait(), Placement)


async def test_one_that_finds_others_waiting_waits_for_the_loop_with_them(bench: Bench) -> None:
    await ready(bench, "w1", slots=8)
    await bench.assign().placed()
    room = bench.scheduler.room
    with room.ticket(Wish("r", "m")) as first, room.ticket(Wish("s", "m")) as second:
        bench.scheduler.look(second)
        assert second.events.empty()
        for ticket in (first, second):
            assert isinstance(await ticket.events.get(), Placement)


async def test_a_decision_that_fails_ends_the_lead_and_not_the_request_alone(state: State) -> None:
    incomparable: Any = None
    knobs = replace(KNOBS, max_waiting=incomparable)
    async with led(state, knobs) as bench:
        await bench.worker()
        with pytest.raises(Unreachable) as caught:
            await bench.assign().placed()
        assert caught.value.reason == "NOT_LEADER"
        assert bench.leading
        with pytest.raises(ExceptionGroup) as failed:
            await bench.leading
        assert failed.group_contains(TypeError)
