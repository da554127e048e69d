"""Replicas on a real engine: two versions of one model side by side, joined loads, cancelled ones, unloads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from mesh.clients.worker import Loaded
from mesh.errors import MeshError
from mesh.facts import ReplicaState, Tier
from mesh.requests import LoadProgress
from services.worker.engine.engine import Engine
from services.worker.engine.errors import UnknownReplica
from services.worker.loading.loader import LoadedReplica, Order
from services.worker.naming import replica_name
from services.worker.replicas import Replicas
from tests.services.worker.engine.tiny import prompt, replica, request

WAIT_S = 20.0
OLD, NEW = Order("m", "d1", "store:1"), Order("m", "d2", "store:1")


class HandLoader:
    """Loads when the test says so; a cancelled load takes until `tidied` is set to end."""

    def __init__(self) -> None:
        self.begun: list[Order] = []
        self.go, self.tidied = asyncio.Event(), asyncio.Event()
        self.go.set()
        self.tidied.set()

    @asynccontextmanager
    async def load(self, order: Order, observer: Any) -> AsyncIterator[LoadedReplica]:
        """A tiny replica."""
        self.begun.append(order)
        observer.progress(LoadProgress(Tier.DISK, 1, 2))
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            await self.tidied.wait()
            raise
        yield LoadedReplica(replica("llama", name=order.replica), Tier.DISK)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """A running engine."""
    one = Engine(lambda steps: None)
    one.start()
    yield one
    await asyncio.to_thread(one.close)


@pytest.fixture
async def loader() -> HandLoader:
    """A loader that loads at once unless told."""
    return HandLoader()


@pytest.fixture
async def replicas(engine: Engine, loader: HandLoader) -> AsyncIterator[Replicas]:
    """A worker's replicas, unloaded at the end."""
    one = Replicas(engine, loader, memory_bytes=1 << 30, kv_bytes=1 << 20)  # type: ignore[arg-type]
    yield one
    loader.go.set()
    loader.tidied.set()
    await one.close()


async def loaded(replicas: Replicas, order: Order) -> Loaded:
    """Loads to the end."""
    async with asyncio.timeout(WAIT_S), aclosing(replicas.load(order)) as events:
        (done,) = [event async for event in events if isinstance(event, Loaded)]
    return done


def held(replicas: Replicas) -> set[tuple[str, str, ReplicaState]]:
    """What the worker would report."""
    return {(facts.model, facts.digest, facts.state) for facts in replicas.facts()}


async def test_two_versions_of_a_model_stand_side_by_side_and_go_one_by_one(engine: Engine, replicas: Replicas) -> None:
    await loaded(replicas, OLD)
    await loaded(replicas, NEW)
    assert held(replicas) == {("m", "d1", ReplicaState.READY), ("m", "d2", ReplicaState.READY)}
    engine.submit(request("r", prompt(8), 400, on=replica_name("m", "d2")))
    await replicas.unload(replica_name("m", "d1"))
    assert held(replicas) == {("m", "d2", ReplicaState.READY)}
    with pytest.raises(UnknownReplica):
        engine.submit(request("s", prompt(8), on=replica_name("m", "d1")))


async def test_a_second_load_of_the_same_version_joins_the_first(loader: HandLoader, replicas: Replicas) -> None:
    loader.go.clear()
    first, second = asyncio.create_task(loaded(replicas, OLD)), asyncio.create_task(loaded(replicas, OLD))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    loader.go.set()
    assert await first == await second
    assert loader.begun == [OLD]


async def test_a_version_asked_for_again_while_its_cancelled_load_tidies_up_is_loaded_anew(
    loader: HandLoader, replicas: Replicas
) -> None:
    """An update, a rollback and the update once more, faster than a load."""
    loader.go.clear()
    loader.tidied.clear()
    async with asyncio.timeout(WAIT_S):
        async with aclosing(replicas.load(OLD)) as events:
            await anext(events)
        again = asyncio.create_task(loaded(replicas, OLD))
        await asyncio.sleep(0)
        loader.go.set()
        loader.tidied.set()
        await again
    assert loader.begun == [OLD, OLD]
    assert held(replicas) == {("m", "d1", ReplicaState.READY)}


async def test_leaving_a_load_of_one_version_leaves_the_other_alone(loader: HandLoader, replicas: Replicas) -> None:
    await loaded(replicas, OLD)
    loader.go.clear()
    async with aclosing(replicas.load(NEW)) as events:
        await anext(events)
        assert held(replicas) == {("m", "d1", ReplicaState.READY), ("m", "d2", ReplicaState.LOADING)}
    async with asyncio.timeout(WAIT_S):
        while len(replicas.facts()) > 1:  # noqa: ASYNC110  facts are published, not awaited
            await asyncio.sleep(0.002)
    assert held(replicas) == {("m", "d1", ReplicaState.READY)}


async def test_a_worker_that_drains_takes_no_version_any_more(replicas: Replicas) -> None:
    await loaded(replicas, OLD)
    replicas.drain()
    with pytest.raises(MeshError) as refused:
        await loaded(replicas, NEW)
    assert refused.value.reason == "DRAINING"
