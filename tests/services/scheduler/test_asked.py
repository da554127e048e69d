"""Moves that are asked for: who goes where, what is loaded for it first, and what stands against it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mesh.errors import DataLoss, MeshError, NoRoom, NotFound, Unreachable, Unsuitable
from mesh.moves import Relocated
from mesh.requests import MoveKind, Phase, StartKind
from mesh.state.drains import Drains, worker_drain
from services.scheduler.relocating import MOST_S
from tests.services.scheduler.conftest import WAIT_S, Assigned, Bench, ready
from tests.services.scheduler.fake_worker import SIZE


async def running(bench: Bench, request_id: str = "r", model: str = "m") -> Assigned:
    """A request that has a place."""
    assigned = bench.assign(model, request_id=request_id)
    await assigned.placed()
    return assigned


@asynccontextmanager
async def asking(bench: Bench, to: str = "", kind: MoveKind | None = None) -> AsyncIterator[asyncio.Task[Relocated]]:
    """Somebody has asked for a move of the request r, and waits."""
    task = asyncio.create_task(bench.asks.move(bench.address, "r", to, kind))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def refused(bench: Bench, to: str = "", request_id: str = "r") -> tuple[type[MeshError], str]:
    """Why a move cannot be."""
    with pytest.raises(MeshError) as caught:
        async with asyncio.timeout(WAIT_S):
            await bench.asks.move(bench.address, request_id, to, None)
    return type(caught.value), caught.value.reason


async def where(bench: Bench) -> list[tuple[str, str]]:
    """Of all requests: where they are, and where they go."""
    return [(one.worker_id, one.to_worker_id) for one in await bench.asks.requests(bench.address)]


async def test_a_running_request_goes_where_it_is_asked_to_and_its_slots_follow(bench: Bench) -> None:
    await ready(bench, "w1", slots=1)
    one = await running(bench)
    await ready(bench, "w2", slots=1)
    async with asking(bench, "w2", MoveKind.KV) as asked:
        told = await one.relocated()
        assert (told.target.worker_id, told.target.fence, told.target.digest) == ("w2", bench.fence("w2"), "m@1")
        assert (told.reason, told.kind, told.target.start_kind) == ("asked", MoveKind.KV, StartKind.WARM)
        assert await where(bench) == [("w1", "w2")]
        other = bench.assign()  # both slots are taken while it moves
        assert (await other.told(lambda progress: True)).phase is Phase.QUEUED
        await bench.moved(told, kind=MoveKind.KV, tokens=7, gap_s=0.25, exact=True)
        done = await asked
    assert (done.from_worker_id, done.to_worker_id) == ("w1", "w2")
    assert (done.outcome.tokens, done.outcome.gap_s, done.outcome.exact) == (7, 0.25, True)
    assert (await other.placed()).worker_id == "w1"
    await other.close()
    await one.close()
    await bench.idle()


async def test_without_a_worker_to_go_to_the_least_busy_replica_that_has_a_slot_is_taken(bench: Bench) -> None:
    await ready(bench, "w1", slots=1)
    one = await running(bench)
    for worker_id in ("w2", "w3"):
        await ready(bench, worker_id, slots=2)
    other = await running(bench, "other")
    async with asking(bench):
        told = await one.relocated()
        free = {"w2", "w3"} - {other.placement.worker_id} if other.placement else set()
        assert (told.target.worker_id, told.kind) == (free.pop(), MoveKind.TOKENS)  # there is hardly a prompt


async def test_a_move_that_fails_leaves_the_request_where_it_was_and_says_why(bench: Bench) -> None:
    await ready(bench, "w1", slots=1)
    one = await running(bench)
    await ready(bench, "w2", slots=1)
    async with asking(bench, "w2") as asked:
        told = await one.relocated()
        await bench.moved(told, failure_reason="LAYOUT_MISMATCH", failure="the pools differ")
        with pytest.raises(Unsuitable) as caught:
            await asked
    assert (caught.value.reason, "the pools differ" in caught.value.message) == ("LAYOUT_MISMATCH", True)
    assert await where(bench) == [("w1", "")]
    assert (await bench.assign().placed()).worker_id == "w2"


async def test_saying_again_how_a_move_ended_changes_nothing(bench: Bench) -> None:
    await ready(bench, "w1", slots=1)
    one = await running(bench)
    await ready(bench, "w2", slots=1)
    async with asking(bench) as asked:
        there = await one.relocated()
        await bench.moved(there)
        await asked
    async with asking(bench) as asked:
        back = await one.relocated()
        await bench.moved(back)
        await asked
    await bench.moved(there)
    await bench.moved(there, failure_reason="LOST", failure="late")
    assert await where(bench) == [("w1", "")]


async def test_a_model_is_loaded_first_where_its_request_is_asked_to_go(bench: Bench) -> None:
    await bench.worker("w1")
    one = await running(bench)
    two = await bench.worker("w2")
    two.fake.go.clear()
    async with asking(bench, "w2") as asked:
        await bench.asked(two, lambda: bool(two.fake.loads))
        await bench.lull()  # nobody waits for the load but who asked, and it goes on
        two.fake.go.set()
        told = await one.relocated()
        await bench.moved(told)
        assert (await asked).to_worker_id == "w2"
    assert len(two.fake.loads) == 1


async def test_what_idles_makes_room_for_it(bench: Bench) -> None:
    await bench.worker("w1")
    one = await running(bench)
    two = await ready(bench, "w2", model="n")
    async with asking(bench) as asked:
        told = await one.relocated()
        await bench.moved(told)
        assert (await asked).to_worker_id == "w2"
    assert [unload.model for unload in two.fake.unloads] == ["n"]


async def test_a_load_that_fails_ends_the_move_before_it_begins(bench: Bench) -> None:
    await bench.worker("w1")
    one = await running(bench)
    two = await bench.worker("w2")
    two.fake.fails = DataLoss("unit 3 is not what its hash says")
    assert await refused(bench, "w2") == (Unreachable, "LOAD_FAILED")
    assert len(two.fake.loads) == 1
    assert await where(bench) == [("w1", "")]
    await one.close()


async def test_a_worker_that_is_to_become_empty_meanwhile_ends_the_move_before_it_begins(bench: Bench) -> None:
    await bench.worker("w1")
    one = await running(bench)
    two = await bench.worker("w2")
    two.fake.go.clear()
    async with asking(bench, "w2") as asked:
        await bench.asked(two, lambda: bool(two.fake.loads))
        await Drains(bench.state).begin(worker_drain("w2"))
        with pytest.raises(Unsuitable) as caught:
            await asked
    assert caught.value.reason == "WORKER_DRAINS"
    await one.close()


async def test_what_stands_against_a_move_is_said(bench: Bench) -> None:
    await bench.worker("w1", slots=1)
    assert await refused(bench) == (NotFound, "UNKNOWN_REQUEST")
    one = await running(bench)
    assert await refused(bench, "w9") == (NotFound, "UNKNOWN_WORKER")
    assert await refused(bench, "w1") == (Unsuitable, "ALREADY_THERE")
    assert await refused(bench) == (NoRoom, "NO_ROOM")
    waits = bench.assign(request_id="late")
    await waits.told(lambda progress: True)
    assert await refused(bench, request_id="late") == (Unsuitable, "WAITS")
    await waits.close()
    two = await ready(bench, "w2", slots=1)
    taken = await running(bench, "other")
    assert await refused(bench, "w2") == (NoRoom, "NO_SLOT")
    await taken.close()
    await bench.worker("w3", memory=SIZE - 1)
    assert await refused(bench, "w3") == (NoRoom, "NO_ROOM")
    await Drains(bench.state).begin(worker_drain("w2"))
    await bench.shown(lambda facts: bool(facts.drains))
    assert await refused(bench, "w2") == (Unsuitable, "WORKER_DRAINS")
    assert two.fake.loads == []
    await one.close()


async def test_what_embeds_stays(bench: Bench) -> None:
    await ready(bench, "w1")
    one = bench.assign(request_id="r", stays=True)
    await one.placed()
    await ready(bench, "w2")
    assert await refused(bench, "w2") == (Unsuitable, "NOT_MOVABLE")


async def test_a_version_that_the_catalogue_has_moved_on_from_goes_only_where_it_is(bench: Bench) -> None:
    await bench.store_more("m@2")
    await ready(bench, "w1", memory=2 * SIZE)
    one = await running(bench)
    await bench.update("m", "m@2")
    await bench.worker("w2")
    assert await refused(bench, "w2") == (Unsuitable, "VERSION_GONE")
    await one.close()


async def test_one_move_of_a_request_at_a_time(bench: Bench) -> None:
    await ready(bench, "w1")
    one = await running(bench)
    await ready(bench, "w2")
    async with asking(bench) as asked:
        told = await one.relocated()
        assert await refused(bench) == (Unsuitable, "ALREADY_MOVES")
        await bench.moved(told)
        await asked


async def test_a_request_that_ends_in_the_midst_gives_both_slots_back(bench: Bench) -> None:
    await ready(bench, "w1", slots=1)
    one = await running(bench)
    await ready(bench, "w2", slots=1)
    async with asking(bench) as asked:
        await one.relocated()
        await one.close()
        with pytest.raises(Unsuitable) as caught:
            await asked
    assert caught.value.reason == "REQUEST_ENDED"
    await bench.idle()
    assert {(await bench.assign().placed()).worker_id for _ in range(2)} == {"w1", "w2"}


async def test_a_move_that_nobody_hears_of_gives_its_slot_up_and_may_yet_end_well(bench: Bench) -> None:
    await ready(bench, "w1", slots=1)
    one = await running(bench)
    await ready(bench, "w2", slots=1)
    async with asking(bench) as asked:
        told = await one.relocated()
        bench.turn(MOST_S)
        with pytest.raises(Unreachable) as caught:
            await asked
    assert caught.value.reason == "MOVE_OVERDUE"
    assert await where(bench) == [("w1", "")]
    await bench.moved(told)
    assert await where(bench) == [("w2", "")]
    assert (await bench.assign().placed()).worker_id == "w1"


async def test_who_asks_and_leaves_before_it_begins_has_asked_nothing(bench: Bench) -> None:
    await bench.worker("w1")
    one = await running(bench)
    two = await bench.worker("w2")
    two.fake.go.clear()
    async with asking(bench, "w2"):
        await bench.asked(two, lambda: bool(two.fake.loads))
    await bench.unasked()
    two.fake.go.set()
    await bench.shown(lambda facts: bool(facts.members["worker/w2"].worker.replicas))  # type: ignore[union-attr]
    await bench.lull()
    assert await where(bench) == [("w1", "")]
    async with asking(bench, "w2"):
        await one.relocated()


async def test_requests_are_listed_the_oldest_first_whether_they_wait_or_run(bench: Bench) -> None:
    await bench.worker("w1", slots=1)
    first = await running(bench, "a")
    bench.turn(2.0)
    waits = bench.assign(request_id="b")
    await waits.told(lambda progress: True)
    bench.turn(1.0)
    found = await bench.asks.requests(bench.address)
    assert [(one.request_id, one.model, one.worker_id, one.age_s) for one in found] == [
        ("a", "m", "w1", 3.0),
        ("b", "m", "", 1.0),
    ]
    await first.close()


async def test_one_that_stands_by_moves_nothing(bench: Bench) -> None:
    await bench.resign()
    with pytest.raises(Unreachable):
        await bench.asks.requests(bench.address)
    assert await refused(bench) == (Unreachable, "NOT_LEADER")


async def test_who_asked_a_leader_that_resigns_hears_of_it(bench: Bench) -> None:
    await ready(bench, "w1")
    one = await running(bench)
    await ready(bench, "w2")
    async with asking(bench) as asked:
        await one.relocated()
        await bench.resign()
        with pytest.raises(Unreachable) as caught:
            await asked
    assert caught.value.reason == "NOT_LEADER"
