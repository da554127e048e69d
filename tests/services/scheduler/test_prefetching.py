"""Prefetches, carried out on a store at the edge, over a real socket and a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import pytest

from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.clock import HandClock
from mesh.errors import DataLoss, MeshError, NoRoom, Unreachable
from mesh.facts import CheckpointFacts, Tier
from mesh.state.catalogue import Catalogue
from mesh.state.connection import State
from mesh.state.mirror import Mirror
from policy.actions import Prefetch
from policy.books import Books
from policy.copying import Copy
from policy.knobs import Knobs
from services.scheduler.prefetching import Prefetching, holds
from tests.services.scheduler.conftest import WAIT_S, Bench, entry
from tests.services.scheduler.fake_store import Asked, FakeStore, store

COPY = Copy("s1", "m@1", Tier.DRAM)
ASK = Prefetch(*COPY)


@dataclass(frozen=True, slots=True)
class Scene:
    """A store that has m@1 on disk, and whoever asks it; `woken` is set when a prefetch has ended."""

    store: FakeStore
    prefetching: Prefetching
    books: Books
    mirror: Mirror
    catalogue: Catalogue
    clock: HandClock
    woken: asyncio.Event

    async def ended(self) -> None:
        """Waits for the next end."""
        async with asyncio.timeout(WAIT_S):
            await self.woken.wait()
        self.woken.clear()


@pytest.fixture
async def scene(state: State) -> AsyncIterator[Scene]:
    """It knows the model m."""
    async with AsyncExitStack() as stack:
        mirror = await stack.enter_async_context(Mirror(state).running())
        fake = await stack.enter_async_context(store(state, "s1", CheckpointFacts("m@1", 10, Tier.DISK, 10)))
        await Catalogue(state).add(entry("m"))
        assert await mirror.until(
            lambda facts: holds(facts, COPY._replace(tier=Tier.DISK)) and "m" in facts.models, WAIT_S
        )
        channels = Channels()
        stack.push_async_callback(channels.close)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        books, clock, woken = Books(), HandClock(), asyncio.Event()
        prefetching = Prefetching(StoreClient(channels), mirror, books, group, clock, Knobs(), woken.set)
        yield Scene(fake, prefetching, books, mirror, Catalogue(state), clock, woken)
        fake.go.set()


async def test_a_prefetch_is_under_way_until_the_facts_show_the_copy(scene: Scene) -> None:
    scene.prefetching.begin(ASK)
    async with asyncio.timeout(WAIT_S):
        await scene.store.changed.wait()
    assert scene.store.prefetches == [Asked("m@1", Tier.DRAM)]
    assert scene.books.copying.under_way == {COPY}
    scene.store.go.set()
    await scene.ended()
    assert holds(scene.mirror.facts, COPY)
    assert not scene.books.copying.under_way
    assert not scene.books.copying.barred_until_s


async def test_what_it_displaces_leaves_first(scene: Scene) -> None:
    scene.store.go.set()
    scene.prefetching.begin(Prefetch(*COPY, instead=("n@1", "o@1")))
    await scene.ended()
    assert scene.store.evictions == [Asked("n@1", Tier.DRAM), Asked("o@1", Tier.DRAM)]
    assert holds(scene.mirror.facts, COPY)


async def test_what_no_model_needs_any_more_is_given_up(scene: Scene) -> None:
    scene.prefetching.begin(ASK)
    async with asyncio.timeout(WAIT_S):
        await scene.store.changed.wait()
    scene.prefetching.end_unwanted()
    assert scene.books.copying.under_way == {COPY}
    await scene.catalogue.remove("m")
    assert await scene.mirror.until(lambda facts: "m" not in facts.models, WAIT_S)
    scene.prefetching.end_unwanted()
    await scene.ended()
    async with asyncio.timeout(WAIT_S):
        await scene.store.left.wait()
    assert not scene.books.copying.under_way


@pytest.mark.parametrize(
    ("error", "others_too"), [(NoRoom("full"), True), (Unreachable("gone"), True), (DataLoss("damaged"), False)]
)
async def test_a_store_that_fails_is_left_alone_for_a_while(scene: Scene, error: MeshError, others_too: bool) -> None:
    scene.store.fails = error
    scene.prefetching.begin(ASK)
    await scene.ended()
    copying, now = scene.books.copying, scene.clock.now()
    assert not copying.under_way
    assert copying.is_barred("s1", "m@1", now)
    assert copying.is_barred("s1", "n@1", now) is others_too
    assert not copying.is_barred("s1", "m@1", now + Knobs().prefetch_bar_s)


async def test_the_scheduler_keeps_a_second_copy_of_what_is_to_be_there_always(bench: Bench) -> None:
    await bench.worker()
    async with store(bench.state, "s2") as second:
        await bench.shown(lambda facts: "store/s2" in facts.members)
        entry_ = bench.mirror.facts.models["m"]
        await bench.catalogue.replace(replace(entry_, min_replicas=1))
        async with asyncio.timeout(WAIT_S):
            await second.changed.wait()
        assert second.prefetches == [Asked("m@1", Tier.DISK)]
        second.go.set()
        await bench.shown(lambda facts: holds(facts, Copy("s2", "m@1", Tier.DISK)))
        bench.scheduler.wake()
        await bench.lull()
        assert len(second.prefetches) == 1


async def test_a_store_that_is_gone_is_barred_and_nothing_is_asked(scene: Scene) -> None:
    scene.prefetching.begin(Prefetch("s9", "m@1", Tier.DRAM))
    await scene.ended()
    assert scene.books.copying.is_barred("s9", "m@1", scene.clock.now())
    assert scene.store.prefetches == []
