"""Moves that the policy decides on, as the scheduler carries them out: a worker that is to become empty."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from mesh.requests import MoveKind, RequestState
from mesh.state.connection import State
from mesh.state.drains import Drains, worker_drain
from mesh.state.mirror import Mirror
from tests.services.scheduler.conftest import KNOBS, Bench, ready


@pytest.fixture
async def bench(state: State) -> AsyncIterator[Bench]:
    """As everywhere, but for that it moves what runs."""
    async with AsyncExitStack() as stack:
        mirror = await stack.enter_async_context(Mirror(state).running())
        bench = Bench(state, mirror, stack, replace(KNOBS, moves=True))
        await bench.serve()
        await bench.lead()
        await bench.store("m@1", "n@1")
        await bench.model("m")
        yield bench


async def drain(bench: Bench, worker_id: str) -> None:
    """It is to become empty."""
    await Drains(bench.state).begin(worker_drain(worker_id))
    await bench.shown(lambda facts: bool(facts.drains))
    bench.scheduler.wake()


async def test_what_runs_on_a_worker_that_is_to_become_empty_goes_on_elsewhere_one_by_one(bench: Bench) -> None:
    one = await ready(bench, "w1", slots=2)
    requests = [bench.assign(request_id=name) for name in ("a", "b")]
    for request in requests:
        await request.placed()
    await ready(bench, "w2", slots=2)
    await drain(bench, "w1")
    left = {(state.request_id, state.worker_id, state.to_worker_id) for state in await listed(bench)}
    assert left == {("a", "w1", "w2"), ("b", "w1", "")}
    for request in requests:
        told = await request.relocated()
        assert (told.target.worker_id, told.reason) == ("w2", "drain")
        await bench.moved(told, kind=MoveKind.KV, tokens=20, bytes_sent=10**6, transfer_s=0.5, gap_s=0.02)
    await bench.asked(one, lambda: bool(one.fake.unloads))
    assert {(state.worker_id, state.to_worker_id) for state in await listed(bench)} == {("w2", "")}


async def test_moves_teach_what_others_will_take(bench: Bench) -> None:
    await ready(bench, "w1")
    request = bench.assign(request_id="a")
    await request.placed()
    await ready(bench, "w2")
    await drain(bench, "w1")
    told = await request.relocated()
    assert "copy_gap" not in await learnt(bench)
    await bench.moved(told, kind=MoveKind.KV, tokens=20, bytes_sent=10**6, transfer_s=0.5, gap_s=0.02)
    rates = await learnt(bench)
    assert rates["copy_gap"] == pytest.approx(0.02, rel=0.05)
    assert rates["kv"] > 0


async def test_a_move_that_failed_is_not_tried_again_at_once(bench: Bench) -> None:
    await ready(bench, "w1")
    request = bench.assign(request_id="a")
    await request.placed()
    await ready(bench, "w2")
    await drain(bench, "w1")
    await bench.moved(await request.relocated(), failure_reason="NO_ROOM", failure="no blocks are free")
    await bench.lull()
    assert [state.to_worker_id for state in await listed(bench)] == [""]
    bench.turn(31.0)
    assert (await request.relocated()).target.worker_id == "w2"


async def listed(bench: Bench) -> list[RequestState]:
    """All requests."""
    return await bench.asks.requests(bench.address)


async def learnt(bench: Bench) -> dict[str, float]:
    """What is known of moves and loads of m, in the cluster."""
    rates = (await bench.asks.explain(bench.address, "m")).rates
    return {rate.quantity: rate.mean_s for rate in rates if not rate.node}
