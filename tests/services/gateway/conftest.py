"""A gateway's inner parts between a scheduler and workers that the test plays, on a real Redis."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from mesh.clients.channel import Channels
from mesh.clients.scheduler import SchedulerClient
from mesh.state.connection import State
from mesh.state.keys import EVENTS_KEPT
from mesh.state.mirror import Mirror
from services.gateway.answer import Answers
from services.gateway.places import Places
from services.gateway.relay import Lines
from tests.services.gateway.edges import WAIT_S, FakeScheduler, FakeWorker, scheduler, worker

HOLD_S = 15.0


class Bench:
    """The parts of one gateway."""

    def __init__(self, state: State, mirror: Mirror, stack: AsyncExitStack) -> None:
        self.state, self.mirror, self._stack = state, mirror, stack
        self.channels = Channels()
        self.lines = Lines(self.channels, "gateway.7")
        self.places = Places(mirror, SchedulerClient(self.channels), HOLD_S)
        self.answers = Answers(self.places, self.lines, "gateway.7", attempts=3)

    async def elected(self, address: str, name: str = "s") -> None:
        """Makes a scheduler the leader, as the gateway sees it."""
        keys = self.state.keys
        bid: list[str | int] = [name, address, 60_000, 0, EVENTS_KEPT]
        await self.state.run("lead", [keys.leader, keys.fence, keys.events], bid)
        assert await self.mirror.until(lambda f: f.leader is not None and f.leader.address == address, WAIT_S)

    async def scheduler(self) -> FakeScheduler:
        """A scheduler that leads."""
        fake = await scheduler(self._stack)
        await self.elected(fake.address)
        return fake

    async def worker(self) -> FakeWorker:
        """A worker."""
        return await worker(self._stack)


@pytest.fixture
async def bench(state: State) -> AsyncIterator[Bench]:
    """A gateway's parts, closed at the end."""
    async with AsyncExitStack() as stack:
        mirror = await stack.enter_async_context(Mirror(state).running())
        bench = Bench(state, mirror, stack)
        yield bench
        await bench.lines.close()
        await bench.channels.close()
