"""Who decides: standing by, losing the lead, being told to end, dying and coming back."""

import asyncio
import signal
from contextlib import AsyncExitStack

import pytest

from mesh.errors import Unreachable
from mesh.facts import Kind
from mesh.requests import StartKind
from mesh.state.connection import State
from mesh.state.mirror import Mirror
from tests.cluster import process
from tests.services.scheduler.conftest import KNOBS, WAIT_S, Bench

SETTINGS = {"leader_lease_s": 60, "drain_s": 0, "grace_s": 60}


async def test_one_that_stands_by_says_so(bench: Bench) -> None:
    await bench.resign()
    with pytest.raises(Unreachable) as caught:
        await bench.assign().placed()
    assert caught.value.reason == "NOT_LEADER"
    assert caught.value.retry_after_s is not None


async def test_those_who_wait_are_sent_on_when_the_lead_is_lost_and_those_who_run_are_left_in_peace(
    bench: Bench,
) -> None:
    one = await bench.worker(slots=1)
    runs, waits = bench.assign(), bench.assign()
    await runs.placed()
    await waits.told(lambda progress: True)
    await bench.resign()
    with pytest.raises(Unreachable) as caught:
        await waits.placed()
    assert caught.value.reason == "NOT_LEADER"
    await runs.ended()
    assert one.fake.unloads == []


async def test_one_that_was_about_to_wait_when_the_lead_was_lost_is_sent_on_too(bench: Bench) -> None:
    """The scheduler gives an unknown model half a second to become known; meanwhile it may lose the lead."""
    placing = asyncio.create_task(bench.assign("nobody").placed())
    await bench.lull()
    await bench.resign()
    with pytest.raises(Unreachable) as caught:
        await placing
    assert caught.value.reason == "NOT_LEADER"


async def test_it_leads_again_and_places_again(bench: Bench) -> None:
    one = await bench.worker()
    await bench.assign().placed()
    await bench.resign()
    await bench.lead()
    assert (await bench.assign().placed()).start_kind is StartKind.WARM
    assert len(one.fake.loads) == 1


async def test_a_load_under_way_ends_with_the_lead(bench: Bench) -> None:
    one = await bench.worker()
    one.fake.go.clear()
    waits = bench.assign()
    await waits.told(lambda progress: progress.load is not None)
    await bench.resign()
    await bench.shown(lambda facts: _replicas(facts.members["worker/w1"]) == 0)


async def test_a_scheduler_told_to_end_ends_at_once_though_streams_are_open(state: State) -> None:
    async with Mirror(state).running() as mirror, AsyncExitStack() as stack:
        bench = Bench(state, mirror, stack, KNOBS)
        await bench.store("m@1")
        await bench.model("m")
        await bench.worker(slots=1)
        settings = SETTINGS | {"redis_url": state.url, "cluster": state.keys.cluster}
        async with process(Kind.SCHEDULER, **settings) as started:
            await bench.shown(lambda facts: facts.leader is not None)
            runs = bench.assign(address=started.address)
            waits = bench.assign(address=started.address)
            await runs.placed()
            await waits.told(lambda progress: True)
            began_s = asyncio.get_running_loop().time()
            started.process.send_signal(signal.SIGTERM)
            with pytest.raises(Unreachable) as caught:
                await waits.placed()
            assert caught.value.reason == "DRAINING"
            await runs.ended()
            async with asyncio.timeout(WAIT_S):
                assert await started.process.wait() == 0
            assert asyncio.get_running_loop().time() - began_s < WAIT_S / 2 < SETTINGS["grace_s"]


async def test_a_leader_that_is_told_to_end_is_succeeded_while_its_lease_is_long(state: State) -> None:
    async with Mirror(state).running() as mirror, AsyncExitStack() as stack:
        bench = Bench(state, mirror, stack, KNOBS)
        settings = SETTINGS | {"redis_url": state.url, "cluster": state.keys.cluster}
        async with process(Kind.SCHEDULER, **settings) as first, process(Kind.SCHEDULER, **settings) as standby:
            await bench.shown(lambda facts: facts.leader is not None)
            leader, successor = (first, standby) if _leads(bench, first.address) else (standby, first)
            leader.process.send_signal(signal.SIGTERM)
            await bench.shown(lambda facts: _leads(bench, successor.address))


async def test_a_killed_scheduler_is_succeeded_and_the_cluster_goes_on(state: State) -> None:
    async with Mirror(state).running() as mirror, AsyncExitStack() as stack:
        bench = Bench(state, mirror, stack, KNOBS)
        await bench.store("m@1")
        await bench.model("m")
        one = await bench.worker()
        settings = SETTINGS | {"leader_lease_s": 2, "redis_url": state.url, "cluster": state.keys.cluster}
        async with process(Kind.SCHEDULER, **settings) as first, process(Kind.SCHEDULER, **settings) as standby:
            await bench.shown(lambda facts: facts.leader is not None)
            leader, successor = (first, standby) if _leads(bench, first.address) else (standby, first)
            await bench.assign(address=leader.address).placed()
            await leader.kill()
            await bench.shown(lambda facts: _leads(bench, successor.address))
            again = bench.assign(address=successor.address)
            assert (await again.placed()).start_kind is StartKind.WARM
            assert len(one.fake.loads) == 1
            await again.close()


def _leads(bench: Bench, address: str) -> bool:
    leader = bench.mirror.facts.leader
    return leader is not None and leader.address == address


def _replicas(member: object) -> int:
    facts = getattr(member, "worker", None)
    return len(facts.replicas) if facts else 0
