"""Leadership: one at a time, by lease; resigning, lapsing, coming back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mesh.facts import Leader
from mesh.state.connection import State
from mesh.state.keys import EVENTS_KEPT
from mesh.state.leadership import Leadership
from mesh.state.mirror import Mirror
from tests.mesh.state.conftest import WAIT_S, Breakable

LONG_S = 3600.0
SHORT_S = 0.3
KEPT_S = 2.0  # a lease that is renewed in time on a busy machine, too


class Candidate:
    """A process that would lead; it notes when it begins and ends to, and under which fences."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fences: list[int] = []
        self.leads, self.stopped = asyncio.Event(), asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def lead(self, fence: int) -> None:
        """The duty: nothing, until it is over."""
        self.fences.append(fence)
        self.stopped.clear()
        self.leads.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.leads.clear()
            self.stopped.set()

    async def resign(self) -> None:
        """Ends as a process does that was told to."""
        assert self.task
        self.task.cancel()
        await asyncio.wait([self.task])


@asynccontextmanager
async def candidate(state: State, mirror: Mirror, name: str, lease_s: float) -> AsyncIterator[Candidate]:
    """Bids until the block ends."""
    one = Candidate(name)
    one.task = asyncio.create_task(Leadership(state, mirror, name, f"{name}:1", lease_s).run(one.lead))
    try:
        yield one
    finally:
        await one.resign()


async def happens(event: asyncio.Event) -> None:
    """Waits for it, not for ever."""
    async with asyncio.timeout(WAIT_S):
        await event.wait()


async def ghost(state: State, name: str, lease_s: float) -> int:
    """Bids as a process that dies at once; the fence of the one that leads then."""
    keys = state.keys
    bid: list[str | int] = [name, f"{name}:1", round(lease_s * 1000), 0, EVENTS_KEPT]
    _, fence, _ = await state.run("lead", [keys.leader, keys.fence, keys.events], bid)
    return int(fence)


async def test_one_leads_and_the_others_stand_by(state: State, mirror: Mirror) -> None:
    async with candidate(state, mirror, "a", LONG_S) as a:
        await happens(a.leads)
        assert await mirror.until(lambda f: f.leader == Leader("a", "a:1", a.fences[0]), WAIT_S)
        assert await ghost(state, "b", SHORT_S) == a.fences[0]  # the answer to a bid is who leads


async def test_a_leader_goes_on_leading_past_its_first_lease(state: State, mirror: Mirror) -> None:
    async with candidate(state, mirror, "a", KEPT_S) as a:
        await happens(a.leads)
        async with candidate(state, mirror, "b", SHORT_S) as b:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(KEPT_S + SHORT_S):
                    await b.leads.wait()
        assert len(a.fences) == 1


async def test_a_standby_takes_over_when_the_leaders_lease_ends_and_not_before(state: State, mirror: Mirror) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    dead = await ghost(state, "dead", SHORT_S)
    async with candidate(state, mirror, "b", LONG_S) as b:
        await happens(b.leads)
        assert loop.time() - began_s >= SHORT_S - 0.01
        assert b.fences[0] > dead


async def test_a_leader_that_resigns_is_succeeded_at_once(state: State, mirror: Mirror) -> None:
    async with candidate(state, mirror, "a", LONG_S) as a:
        await happens(a.leads)
        async with candidate(state, mirror, "b", LONG_S) as b:
            assert await mirror.until(lambda f: f.leader is not None, WAIT_S)
            await a.resign()
            await happens(b.leads)
            assert b.fences[0] > a.fences[0]


async def test_when_the_last_one_resigns_nobody_leads(state: State, mirror: Mirror) -> None:
    async with candidate(state, mirror, "a", LONG_S) as a:
        await happens(a.leads)
    assert await mirror.until(lambda f: f.leader is None, WAIT_S)
    async with Mirror(state).running() as fresh:
        assert fresh.facts.leader is None


async def test_a_leader_that_comes_back_under_its_name_leads_at_once_and_its_former_self_stops(
    state: State, mirror: Mirror
) -> None:
    async with candidate(state, mirror, "a", SHORT_S) as former:
        await happens(former.leads)
        async with candidate(state, mirror, "a", LONG_S) as again:
            await happens(again.leads)
            assert again.fences[0] > former.fences[0]
            await happens(former.stopped)


async def test_a_former_leader_does_not_resign_for_its_successor(state: State, mirror: Mirror) -> None:
    async with candidate(state, mirror, "a", LONG_S) as former:
        await happens(former.leads)
        newer = await ghost(state, "a", LONG_S)
    async with Mirror(state).running() as fresh:
        assert fresh.facts.leader == Leader("a", "a:1", newer)


async def test_a_leader_that_redis_does_not_answer_goes_on_until_it_hears_of_another(breakable: Breakable) -> None:
    async with (
        State(breakable.url, "c") as state,
        Mirror(state).running() as mirror,
        candidate(state, mirror, "a", SHORT_S) as a,
    ):
        await happens(a.leads)
        breakable.freeze()
        await becomes(mirror, stale=True)
        breakable.thaw()
        await becomes(mirror, stale=False)
        assert a.leads.is_set()
        assert len(a.fences) == 1
        await ghost(state, "a", LONG_S)
        await happens(a.stopped)


async def test_a_leader_leads_again_when_redis_comes_back_empty(breakable: Breakable) -> None:
    async with (
        State(breakable.url, "c") as state,
        Mirror(state).running() as mirror,
        candidate(state, mirror, "a", SHORT_S) as a,
    ):
        await happens(a.leads)
        await breakable.stop()
        await breakable.start()
        await happens(a.stopped)
        await happens(a.leads)
        assert a.fences[1] > a.fences[0]


async def becomes(mirror: Mirror, *, stale: bool) -> None:
    """Waits until the mirror has noticed."""
    async with asyncio.timeout(WAIT_S):
        with mirror.watching() as changed:
            while mirror.stale is not stale:
                changed.clear()
                await changed.wait()


async def test_a_duty_that_fails_ends_the_candidacy_loudly_and_resigns(state: State, mirror: Mirror) -> None:
    async def lead(fence: int) -> None:
        raise ValueError(f"cannot lead under {fence > 0}")

    with pytest.raises(ValueError, match="cannot lead under True"):
        await Leadership(state, mirror, "a", "a:1", LONG_S).run(lead)
    assert await mirror.until(lambda f: f.leader is None, WAIT_S)
