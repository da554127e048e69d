"""A gateway's inner parts between a scheduler and workers that the test plays, on a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from mesh.clients.channel import Channels
from mesh.clients.scheduler import SchedulerClient
from mesh.facts import CheckpointSummary, ModelEntry
from mesh.state.catalogue import Catalogue
from mesh.state.connection import State
from mesh.state.keys import EVENTS_KEPT
from mesh.state.mirror import Mirror
from services.gateway.answer import Answers
from services.gateway.exactness import Numerics
from services.gateway.holding import Holding
from services.gateway.leading import Leading
from services.gateway.moving.limits import MoveLimits
from services.gateway.places import Places
from services.gateway.relay import Lines
from services.gateway.retries import Bounds
from tests.services.gateway.edges import WAIT_S, FakeScheduler, FakeWorker, scheduler, worker

HOLD_S = 15.0
STOP_S = 0.1


class Bench:
    """The parts of one gateway."""

    def __init__(self, state: State, mirror: Mirror, stack: AsyncExitStack) -> None:
        self.state, self.mirror, self._stack = state, mirror, stack
        self.channels = Channels()
        self.lines = Lines(self.channels, "gateway.7")
        self.leading = Leading(mirror)
        self.holding = Holding(mirror, self.leading, self.channels, "gateway.7")
        self.places = self.patient(HOLD_S)
        self.answers = Answers(
            self.places,
            self.lines,
            Numerics(mirror),
            "gateway.7",
            bounds=Bounds(attempts=3, deaths=2),
            limits=MoveLimits(stop_s=STOP_S),
        )

    def patient(self, hold_s: float) -> Places:
        """Places whose requests wait so long for a scheduler."""
        return Places(
            self.mirror, SchedulerClient(self.channels), self.leading, self.holding, hold_s=hold_s, absent_s=hold_s
        )

    async def catalogued(self, model: str) -> None:
        """A model that the gateway knows of."""
        summary = CheckpointSummary("d1", 1000, "LlamaForCausalLM", "bfloat16", 512, 6, 39, 64)
        await Catalogue(self.state).add(ModelEntry(model, summary, "/models", None, created_s=0.0, updated_s=0.0))
        assert await self.mirror.until(lambda facts: model in facts.models, WAIT_S)

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
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(bench.leading.watch())
            announce = group.create_task(bench.holding.announce())
            yield bench
            watch.cancel()
            announce.cancel()
        await bench.lines.close()
        await bench.channels.close()
