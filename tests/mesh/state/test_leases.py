"""Membership: joining, renewing, lapsing, being superseded, leaving."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from mesh.errors import StaleFence
from mesh.facts import Kind, WorkerFacts
from mesh.state.connection import State
from mesh.state.keys import EVENTS_KEPT
from mesh.state.leadership import Leadership
from mesh.state.leases import MEMBER, Membership
from mesh.state.mirror import Mirror
from tests.cluster import process
from tests.mesh.state.conftest import WAIT_S, Breakable, member, seen

LEASE_S = 0.3
KEPT_S = 3.0  # a lease that is renewed in time on a busy machine, too


def facts(memory_bytes: int) -> WorkerFacts:
    """Facts that a number tells apart."""
    return WorkerFacts("host", memory_bytes, 1, 1)


async def for_ever(fence: int) -> None:
    """A leader that has nothing to decide."""
    await asyncio.Event().wait()


async def ghost(state: State, name: str, lease_s: float) -> None:
    """Joins as a process that dies at once: its lease is never renewed."""
    keys, body = state.keys, MEMBER.dump_json(member(name.partition("/")[2])).decode()
    where = [keys.leases, keys.fence, keys.member_prefix + name, keys.events]
    await state.run("join", where, [name, round(lease_s * 1000), body, EVENTS_KEPT])


async def test_a_member_is_seen_when_it_joins_and_gone_when_it_leaves(state: State, mirror: Mirror) -> None:
    async with Membership(state, member("w1", address="host:7"), lease_s=60.0) as membership:
        await seen(mirror, "worker/w1")
        assert mirror.facts.members["worker/w1"] == membership.member
        assert mirror.facts.members["worker/w1"].address == "host:7"
    await seen(mirror)


async def test_fencing_tokens_only_grow(state: State, mirror: Mirror) -> None:
    fences = []
    for name in ("w1", "w2", "w1"):
        async with Membership(state, member(name), lease_s=60.0) as membership:
            fences.append(membership.member.fence)
        elected: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        leading = asyncio.create_task(Leadership(state, mirror, "s", "a", 60.0).run(_note(elected)))
        fences.append(await elected)
        await _ended(leading)
    assert fences == sorted(set(fences))


async def test_fencing_tokens_grow_even_when_redis_has_lost_its_data(breakable: Breakable) -> None:
    async with State(breakable.url, "c") as state:
        async with Membership(state, member(), lease_s=60.0) as before:
            pass
        await breakable.stop()
        await breakable.start()
        async with Membership(state, member(), lease_s=60.0) as after:
            assert after.member.fence > before.member.fence


async def test_the_newest_published_facts_win(state: State, mirror: Mirror) -> None:
    async with Membership(state, member(), lease_s=60.0) as membership:
        for number in range(1, 21):
            membership.publish(replace(membership.member, worker=facts(number)))
        assert await mirror.until(lambda f: f.members["worker/w1"].worker == facts(20), WAIT_S)
        assert mirror.facts.members["worker/w1"].fence == membership.member.fence


async def test_publishing_does_not_wait_for_the_heartbeat(state: State, mirror: Mirror) -> None:
    async with Membership(state, member(), lease_s=3600.0) as membership:
        membership.publish(replace(membership.member, worker=facts(1)))
        assert await mirror.until(lambda f: f.members["worker/w1"].worker == facts(1), WAIT_S)


async def test_a_renewed_lease_outlives_its_term_and_one_that_is_not_lapses(state: State, mirror: Mirror) -> None:
    async with Membership(state, member("alive"), KEPT_S) as alive:
        fence = alive.member.fence
        await ghost(state, "worker/dead", KEPT_S + LEASE_S)
        await seen(mirror, "worker/alive", "worker/dead")
        sweeping = asyncio.create_task(Leadership(state, mirror, "s", "a", LEASE_S).run(for_ever))
        await seen(mirror, "worker/alive")
        await _ended(sweeping)
        assert alive.member.fence == fence


async def test_a_lease_that_nobody_renews_lapses_at_its_end_and_not_before(state: State, mirror: Mirror) -> None:
    sweeping = asyncio.create_task(Leadership(state, mirror, "s", "a", LEASE_S).run(for_ever))
    began_s = asyncio.get_running_loop().time()
    await ghost(state, "worker/dead", 2 * LEASE_S)
    await seen(mirror, "worker/dead")
    await seen(mirror)
    assert asyncio.get_running_loop().time() - began_s >= 2 * LEASE_S - 0.01
    await _ended(sweeping)


async def test_a_process_that_lost_its_name_is_told_so_and_leaves_its_successor_alone(
    state: State, mirror: Mirror
) -> None:
    async with AsyncExitStack() as former:
        old = await former.enter_async_context(Membership(state, member(address="old:1"), LEASE_S))
        async with Membership(state, member(address="new:1"), lease_s=60.0) as new:  # no heartbeat mends it meanwhile
            await asyncio.wait([old.superseded], timeout=WAIT_S)
            with pytest.raises(StaleFence, match="another process is now worker/w1"):
                old.superseded.result()
            await former.aclose()
            async with Mirror(state).running() as fresh:
                assert dict(fresh.facts.members) == {"worker/w1": new.member}


async def test_a_member_whose_lease_lapsed_while_it_slept_comes_back_under_a_new_fence(
    state: State, mirror: Mirror
) -> None:
    """A real process, stopped like a machine that was suspended."""
    sweeping = asyncio.create_task(Leadership(state, mirror, "s", "a", LEASE_S).run(for_ever))
    settings = {"redis_url": state.url, "cluster": state.keys.cluster, "lease_s": LEASE_S, "id": "sleeper"}
    name = "scheduler/sleeper"
    async with process(Kind.SCHEDULER, **settings) as sleeper:
        await seen(mirror, name)
        fence = mirror.facts.members[name].fence
        os.kill(sleeper.process.pid, signal.SIGSTOP)
        await seen(mirror)
        os.kill(sleeper.process.pid, signal.SIGCONT)
        await seen(mirror, name)
        assert mirror.facts.members[name].fence > fence
    await seen(mirror)
    await _ended(sweeping)


async def test_a_killed_process_is_swept(state: State, mirror: Mirror) -> None:
    sweeping = asyncio.create_task(Leadership(state, mirror, "s", "a", LEASE_S).run(for_ever))
    settings = {"redis_url": state.url, "cluster": state.keys.cluster, "lease_s": LEASE_S, "id": "victim"}
    async with process(Kind.SCHEDULER, **settings) as victim:
        await seen(mirror, "scheduler/victim")
        await victim.kill()
        await seen(mirror)
    await _ended(sweeping)


async def test_a_member_joins_again_with_its_newest_facts_when_redis_comes_back_empty(breakable: Breakable) -> None:
    async with State(breakable.url, "c") as state, Membership(state, member(), LEASE_S) as membership:
        before = membership.member.fence
        await breakable.stop()
        membership.publish(replace(membership.member, worker=facts(5)))
        await breakable.start()
        async with Mirror(state).running() as mirror:
            assert await mirror.until(lambda f: "worker/w1" in f.members, WAIT_S)
            assert await mirror.until(lambda f: f.members["worker/w1"].worker == facts(5), WAIT_S)
            assert mirror.facts.members["worker/w1"].fence > before


async def test_a_member_outlives_a_redis_that_does_not_answer_for_longer_than_its_lease(breakable: Breakable) -> None:
    async with State(breakable.url, "c") as state, Membership(state, member(), LEASE_S) as membership:
        breakable.freeze()
        await asyncio.sleep(2 * LEASE_S)  # the server's clock goes on, and cannot be turned
        breakable.thaw()
        membership.publish(replace(membership.member, worker=facts(6)))
        async with Mirror(state).running() as mirror:
            assert await mirror.until(lambda f: "worker/w1" in f.members, WAIT_S)
            assert await mirror.until(lambda f: f.members["worker/w1"].worker == facts(6), WAIT_S)
        assert not membership.superseded.done()


async def test_leaving_while_redis_is_gone_ends_all_the_same(breakable: Breakable) -> None:
    async with State(breakable.url, "c") as state, Membership(state, member(), LEASE_S):
        await breakable.stop()


def _note(elected: "asyncio.Future[int]") -> Callable[[int], Awaitable[None]]:
    async def lead(fence: int) -> None:
        elected.set_result(fence)
        await for_ever(fence)

    return lead


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])
