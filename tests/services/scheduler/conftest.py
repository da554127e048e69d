"""A scheduler that leads a small cluster on a real Redis, by a clock that the test turns."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from grpc import aio
from whimbrel.scheduler.v1.scheduler_pb2_grpc import add_SchedulerServiceServicer_to_server

from mesh.clients.channel import Channels
from mesh.clients.scheduler import SchedulerClient
from mesh.clients.store import StoreClient
from mesh.clients.worker import WorkerClient
from mesh.clock import HandClock
from mesh.facts import (
    CheckpointFacts,
    CheckpointSummary,
    ClusterFacts,
    Kind,
    Member,
    ModelEntry,
    NumericsLevel,
    ReplicaState,
    StoreFacts,
    Tier,
)
from mesh.interceptor import Surround
from mesh.moves import Moved, Relocation
from mesh.requests import PLAIN, Placement, Progress, ServiceClass, Wish
from mesh.state.catalogue import Catalogue
from mesh.state.connection import State
from mesh.state.leadership import Leadership
from mesh.state.learnt import Notebook
from mesh.state.leases import Membership
from mesh.state.mirror import Mirror
from mesh.state.reservations import Reservations
from policy.knobs import Knobs
from services.scheduler.loop import Scheduler
from services.scheduler.service import SchedulerServicer
from tests.services.scheduler.fake_worker import Served, worker

WAIT_S = 60.0  # for what takes milliseconds on a machine that is not busy
KNOBS = Knobs(keep_alive_s=60.0, hold_s=120.0, max_waiting=3, distrust_s=5.0)


def entry(
    name: str,
    *,
    digest: str = "",
    weights: int = 10,
    keep_alive_s: float | None = None,
    numerics: NumericsLevel | None = None,
) -> ModelEntry:
    """A model whose replica takes 12 bytes; unless told, its digest is its name followed by "@1"."""
    summary = CheckpointSummary(digest or f"{name}@1", weights, "LlamaForCausalLM", "bfloat16", 512, 6, 39, 64)
    return ModelEntry(name, summary, "/models", keep_alive_s, created_s=0.0, updated_s=0.0, numerics=numerics)


class Assigned:
    """One Assign stream, read as it comes; the place is held until it is closed."""

    def __init__(self, events: AsyncGenerator[Progress | Placement | Relocation, None]) -> None:
        self._events = events
        self.progress: list[Progress] = []
        self.placement: Placement | None = None

    async def placed(self) -> Placement:
        """Reads up to the placement."""
        async with asyncio.timeout(WAIT_S):
            async for event in self._events:
                if isinstance(event, Placement):
                    self.placement = event
                    return event
                assert isinstance(event, Progress)
                self.progress.append(event)
        raise AssertionError("the stream ended without a placement")

    async def relocated(self) -> Relocation:
        """What comes after the placement."""
        async with asyncio.timeout(WAIT_S):
            event = await anext(self._events)
        assert isinstance(event, Relocation)
        return event

    async def told(self, seen: Callable[[Progress], bool]) -> Progress:
        """Reads up to the progress that is looked for."""
        async with asyncio.timeout(WAIT_S):
            async for event in self._events:
                assert isinstance(event, Progress)
                self.progress.append(event)
                if seen(event):
                    return event
        raise AssertionError("the stream ended before")

    async def ended(self) -> None:
        """Reads to the end, which must be a peaceful one."""
        async with asyncio.timeout(WAIT_S):
            assert [event async for event in self._events] == []

    async def close(self) -> None:
        """Gives the place back."""
        await self._events.aclose()


class Bench:
    """The cluster of one test."""

    def __init__(self, state: State, mirror: Mirror, stack: AsyncExitStack, knobs: Knobs) -> None:
        self.state, self.mirror, self._stack = state, mirror, stack
        self.clock, self.catalogue, self._channels = HandClock(), Catalogue(state), Channels()
        workers, stores = WorkerClient(self._channels), StoreClient(self._channels)
        notebook, reservations = Notebook(state), Reservations(state)
        self.scheduler = Scheduler(
            mirror, workers, stores, knobs, self.clock, notebook=notebook, reservations=reservations
        )
        self.leadership = Leadership(state, mirror, "s", "s:1", lease_s=60.0)
        self.leading: asyncio.Task[None] | None = None
        self.address = ""

    async def serve(self) -> None:
        """Answers on a socket."""
        server = aio.server(interceptors=[Surround()])
        add_SchedulerServiceServicer_to_server(SchedulerServicer(self.scheduler), server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        self._stack.push_async_callback(self._channels.close)
        self._stack.push_async_callback(server.stop, None)

    async def lead(self) -> None:
        """Returns when it leads."""
        former = self.mirror.facts.leader  # who may have resigned a moment ago
        self.leading = asyncio.create_task(self.leadership.run(self.scheduler.lead))
        self._stack.push_async_callback(self.resign)
        await self.shown(lambda facts: facts.leader not in (None, former))

    async def resign(self) -> None:
        """Leads no more."""
        assert self.leading
        self.leading.cancel()
        await asyncio.wait([self.leading])

    async def worker(self, worker_id: str = "w1", **size: Any) -> Served:
        """A fake worker that the scheduler knows of."""
        served = await self._stack.enter_async_context(worker(self.state, worker_id, self.clock, **size))
        await self.shown(lambda facts: _has_facts(facts, f"worker/{worker_id}"))
        return served

    async def store(self, *digests: str, tier: Tier = Tier.DISK) -> None:
        """A store of the workers' node that holds these checkpoints; nobody calls it."""
        held = tuple(CheckpointFacts(digest, 10, tier) for digest in digests)
        member = Member(Kind.STORE, "s1", "n1", "store:1", store=StoreFacts(0, 0, 0, held))
        await self._stack.enter_async_context(Membership(self.state, member, lease_s=60.0))
        await self.shown(lambda facts: "store/s1" in facts.members)

    async def store_more(self, *digests: str) -> None:
        """A second store, of the same node."""
        held = tuple(CheckpointFacts(digest, 10, Tier.DISK) for digest in digests)
        member = Member(Kind.STORE, "s2", "n1", "store:2", store=StoreFacts(0, 0, 0, held))
        await self._stack.enter_async_context(Membership(self.state, member, lease_s=60.0))
        await self.shown(lambda facts: "store/s2" in facts.members)

    async def model(self, name: str = "m", **more: Any) -> ModelEntry:
        """A model that the scheduler knows of."""
        stored = await self.catalogue.add(entry(name, **more))
        await self.shown(lambda facts: name in facts.models)
        return stored

    def assign(
        self,
        model: str = "m",
        *excluded: int,
        address: str = "",
        current_only: bool = False,
        service: ServiceClass = PLAIN,
        digest: str = "",
        request_id: str = "client's own id",
        stays: bool = False,
    ) -> Assigned:
        """Asks for a place, once it is read. `excluded` are fences."""
        wish = Wish(request_id, model, frozenset(excluded), current_only, service, digest=digest, stays=stays)
        assigned = Assigned(SchedulerClient(self._channels).assign(address or self.address, wish))
        self._stack.push_async_callback(assigned.close)
        return assigned

    @property
    def asks(self) -> SchedulerClient:
        """Calls the scheduler as a gateway does."""
        return SchedulerClient(self._channels)

    async def moved(self, relocation: Relocation, **more: Any) -> None:
        """A gateway tells how that went: well, unless told."""
        await self.asks.moved(self.address, Moved(relocation.move_id, **more))

    def fence(self, worker_id: str) -> int:
        """Of the worker's lease, as the scheduler sees it."""
        return self.mirror.facts.members[f"{Kind.WORKER}/{worker_id}"].fence

    async def update(self, name: str, digest: str) -> ModelEntry:
        """Points a model at another checkpoint, as a gateway does."""
        current = self.mirror.facts.models[name]
        summary = replace(current.checkpoint, digest=digest)
        stored = await self.catalogue.replace(replace(current, checkpoint=summary, previous=current.checkpoint))
        await self.shown(lambda facts: facts.models[name].revision >= stored.revision)
        return stored

    async def shown(self, seen: Callable[[ClusterFacts], bool]) -> None:
        """Waits until the scheduler's facts are so."""
        assert await self.mirror.until(seen, WAIT_S), self.mirror.facts

    def turn(self, seconds: float) -> None:
        """Lets time pass, and has the scheduler look at its clock."""
        self.clock.turn(seconds)
        self.scheduler.wake()

    async def lull(self) -> None:
        """Gives the scheduler time for what it must not do."""
        await asyncio.sleep(0.05)

    async def idle(self) -> None:
        """Waits until nothing holds a place and the scheduler has looked at that."""
        async with asyncio.timeout(WAIT_S):
            while self.scheduler.room.placed:  # noqa: ASYNC110  the room wakes the loop, and nobody else
                await asyncio.sleep(0.002)
        await self.lull()

    async def unasked(self) -> None:
        """Waits until the scheduler knows that nobody asks for a move any more."""
        async with asyncio.timeout(WAIT_S):
            while self.scheduler._asked and self.scheduler._asked.asked:  # noqa: ASYNC110  as in idle()
                await asyncio.sleep(0.002)

    async def asked_to_hold(self, places: int) -> None:
        """Waits until gateways have told of so many places."""
        async with asyncio.timeout(WAIT_S):
            while self.scheduler.room.placed.total() != places:  # noqa: ASYNC110  as in idle()
                await asyncio.sleep(0.002)

    async def asked(self, served: Served, seen: Callable[[], bool]) -> None:
        """Waits until a worker has been asked for something."""
        async with asyncio.timeout(WAIT_S):
            while not seen():
                served.fake.changed.clear()
                await served.fake.changed.wait()


def _has_facts(facts: ClusterFacts, name: str) -> bool:
    member = facts.members.get(name)
    return member is not None and member.worker is not None


async def ready(bench: Bench, worker_id: str, *, model: str = "m", **size: int) -> Served:
    """A worker with a replica that is there already."""
    served = await bench.worker(worker_id, **size)
    served.fake.show(model, ReplicaState.READY)
    await bench.shown(lambda facts: bool(facts.members[f"worker/{worker_id}"].worker.replicas))  # type: ignore[union-attr]
    return served


@pytest.fixture
async def bench(state: State) -> AsyncIterator[Bench]:
    """It leads, and knows the model m, which the store has."""
    async with led(state, KNOBS) as bench:
        yield bench


@asynccontextmanager
async def led(state: State, knobs: Knobs) -> AsyncIterator[Bench]:
    """The same, by other numbers."""
    async with AsyncExitStack() as stack:
        mirror = await stack.enter_async_context(Mirror(state).running())
        bench = Bench(state, mirror, stack, knobs)
        await bench.serve()
        await bench.lead()
        await bench.store("m@1", "n@1")
        await bench.model("m")
        yield bench
