"""What a leader takes over from the one before: loads under way, and places that running requests hold."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from mesh.clients.channel import Channels
from mesh.clients.holding import HoldingClient
from mesh.errors import MeshError, Unreachable
from mesh.facts import Kind, Member, ReplicaState
from mesh.requests import HeldPlace, StartKind
from mesh.state.leases import Membership
from mesh.state.reservations import Reservation, Reservations
from tests.services.scheduler.conftest import WAIT_S, Bench


@asynccontextmanager
async def telling(bench: Bench, gateway_id: str, held: Sequence[HeldPlace]) -> AsyncIterator[HoldingClient]:
    """A gateway that tells the scheduler of places."""
    channels = Channels()
    line = HoldingClient(channels, bench.address, gateway_id, held)
    task = asyncio.create_task(line.run())
    try:
        yield line
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, MeshError):
            await task
        await channels.close()


async def gateway(bench: Bench) -> Membership:
    """One that is alive by its lease, and says nothing by itself."""
    membership = Membership(bench.state, Member(Kind.GATEWAY, "g", "n1", "g:1"), lease_s=60.0)
    await membership.__aenter__()
    await bench.shown(lambda facts: "gateway/g" in facts.members)
    return membership


def held(bench: Bench, number: int = 0, worker_id: str = "w1") -> HeldPlace:
    """A place on the replica of m."""
    return HeldPlace(number, worker_id, bench.fence(worker_id), "m", "m@1")


async def left(bench: Bench, worker_id: str, worker_fence: int) -> None:
    """A former leader, whose fence was 7, commanded a load of m there; nobody leads now."""
    leader = bench.state.keys.leader
    await bench.state.redis.hset(leader, "fence", "7")
    one = Reservation(7, worker_fence, worker_id, worker_fence, "m", "m@1", "s1", "demand")
    await Reservations(bench.state).reserve(one)
    await bench.state.redis.delete(leader)


async def until_reserved(bench: Bench, count: int) -> list[Reservation]:
    """Waits until so many loads are written down."""
    async with asyncio.timeout(WAIT_S):
        while len(found := await Reservations(bench.state).all()) != count:  # noqa: ASYNC110  nothing tells of them
            await asyncio.sleep(0.002)
    return found


async def test_a_load_is_written_down_before_it_is_commanded_and_struck_out_after_it(bench: Bench) -> None:
    one = await bench.worker()
    one.fake.go.clear()
    waits = bench.assign()
    await waits.told(lambda progress: progress.load is not None)
    (reservation,) = await until_reserved(bench, 1)
    assert (reservation.worker_id, reservation.worker_fence) == ("w1", bench.fence("w1"))
    assert (reservation.model, reservation.digest, reservation.store_id) == ("m", "m@1", "s1")
    assert reservation.fence == one.fake.loads[0].fence
    one.fake.go.set()
    await waits.placed()
    await until_reserved(bench, 0)


async def test_a_load_that_may_not_be_written_down_is_not_commanded(bench: Bench) -> None:
    """Another leads by now: only this one has not heard of it yet."""
    one = await bench.worker()
    await bench.state.redis.hset(bench.state.keys.leader, "fence", "1")
    bench.assign()
    waits = bench.assign()
    await waits.told(lambda progress: True)
    await bench.lull()
    assert one.fake.loads == []


async def test_a_load_that_a_former_leader_commanded_is_gone_on_with_and_booked(bench: Bench) -> None:
    one, other = await bench.worker("w1"), await bench.worker("w2")
    await bench.resign()
    await left(bench, "w1", bench.fence("w1"))
    one.fake.go.clear()
    await bench.lead()
    await bench.asked(one, lambda: bool(one.fake.loads))
    waits = bench.assign()
    await waits.told(lambda progress: progress.load is not None)
    one.fake.go.set()
    assert (await waits.placed()).worker_id == "w1"
    assert (len(one.fake.loads), other.fake.loads) == (1, [])
    assert one.fake.loads[0].fence > 7
    await until_reserved(bench, 0)


async def test_an_inherited_load_that_nobody_comes_to_wait_for_is_ended(bench: Bench) -> None:
    one = await bench.worker("w1")
    await bench.resign()
    await left(bench, "w1", bench.fence("w1"))
    one.fake.go.clear()
    await bench.lead()
    await bench.asked(one, lambda: bool(one.fake.loads))
    await bench.lull()
    bench.turn(10.0)
    await until_reserved(bench, 0)


async def test_what_a_former_leader_loaded_on_a_worker_that_has_gone_is_struck_out(bench: Bench) -> None:
    one = await bench.worker("w1")
    await bench.resign()
    await left(bench, "w1", bench.fence("w1") - 1)
    await left(bench, "w9", 5)
    await bench.lead()
    await until_reserved(bench, 0)
    assert one.fake.loads == []


async def test_a_place_that_a_former_leader_gave_is_no_free_slot(bench: Bench) -> None:
    one = await bench.worker(slots=1)
    one.fake.show("m", ReplicaState.READY)
    await bench.shown(lambda facts: bool(facts.members["worker/w1"].worker.replicas))  # type: ignore[union-attr]
    async with telling(bench, "g.1", [held(bench)]) as line:
        await bench.asked_to_hold(1)
        waits = bench.assign()
        await waits.told(lambda progress: True)
        line.tell(released=[0])
        assert (await waits.placed()).start_kind is StartKind.WARM


async def test_a_gateway_that_dies_gives_back_what_it_held(bench: Bench) -> None:
    one = await bench.worker(slots=1)
    one.fake.show("m", ReplicaState.READY)
    async with telling(bench, "g.1", [held(bench)]):
        await bench.asked_to_hold(1)
        waits = bench.assign()
        await waits.told(lambda progress: True)
    assert (await waits.placed()).start_kind is StartKind.WARM


async def test_a_place_on_a_worker_that_has_come_back_since_is_none(bench: Bench) -> None:
    await bench.worker(slots=1)
    gone = HeldPlace(0, "w1", bench.fence("w1") - 1, "m", "m@1")
    async with telling(bench, "g.1", [gone, held(bench, 1)]):
        await bench.asked_to_hold(1)


async def test_a_leader_waits_for_the_word_of_every_gateway_before_it_decides(bench: Bench) -> None:
    one = await bench.worker(slots=1)
    one.fake.show("m", ReplicaState.READY)
    await bench.resign()
    membership = await gateway(bench)
    await bench.lead()
    waits = bench.assign()
    async with telling(bench, f"g.{membership.member.fence}", [held(bench)]) as line:
        await waits.told(lambda progress: True)
        line.tell(released=[0])
        await waits.placed()
    await membership.__aexit__()


async def test_a_gateway_that_says_nothing_is_not_waited_for_any_longer(bench: Bench) -> None:
    await bench.worker()
    await bench.resign()
    membership = await gateway(bench)
    await bench.lead()
    await bench.assign().placed()
    await membership.__aexit__()


async def test_one_that_stands_by_keeps_no_places_and_one_that_no_longer_leads_ends_its_lines(bench: Bench) -> None:
    channels = Channels()
    ends = asyncio.create_task(HoldingClient(channels, bench.address, "g.1", []).run())
    await bench.lull()
    await bench.resign()
    async with asyncio.timeout(WAIT_S):
        await ends
        with pytest.raises(Unreachable) as standing_by:
            await HoldingClient(channels, bench.address, "g.1", []).run()
    assert standing_by.value.reason == "NOT_LEADER"
    await channels.close()
