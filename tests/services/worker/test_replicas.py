"""Replicas on a real engine: two versions of one model side by side, joined loads, cancelled ones, unloads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from transformers import PreTrainedModel

from mesh.checkpoint.lora import recipe
from mesh.clients.worker import Loaded
from mesh.errors import MeshError, Unsuitable
from mesh.facts import NumericsLevel, ReplicaState, Tier
from mesh.requests import LoadProgress
from services.worker.engine.engine import Engine
from services.worker.engine.errors import UnknownReplica
from services.worker.engine.numerics import LEVELS
from services.worker.engine.peft import make_adapter
from services.worker.loading.adapting import LoadedAdapter
from services.worker.loading.loader import LoadedReplica, Order
from services.worker.naming import replica_name
from services.worker.replicas import Replicas
from tests.services.worker.engine.leaky import make_leaky
from tests.services.worker.engine.lora import ATTENTION, trained
from tests.services.worker.engine.tiny import prompt, replica, request

WAIT_S = 60.0
OLD, NEW = Order("m", "d1", "store:1"), Order("m", "d2", "store:1")
BASE, ALONE = OLD, Order("", "d1", "store:1")
A, B = (Order(name, f"{name}1", "store:1", base="d1", base_model="m") for name in ("a", "b"))


class HandLoader:
    """Loads when the test says so; a cancelled load takes until `tidied` is set to end."""

    def __init__(self) -> None:
        self.begun: list[Order] = []
        self.freed: list[Order] = []  # whose memory may be given back
        self.leaky = False
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
        made = replica("llama", name=order.replica, numerics=LEVELS[order.numerics or NumericsLevel.FAST])
        if self.leaky:
            make_leaky(made)
        try:
            yield LoadedReplica(made, Tier.DISK)
        finally:
            self.freed.append(order)


class HandAdapters:
    """Loads at once unless told; what it makes is of a tiny llama."""

    def __init__(self) -> None:
        self.begun: list[Order] = []
        self.go = asyncio.Event()
        self.go.set()
        self.fails: MeshError | None = None

    async def load(self, order: Order, base: PreTrainedModel, observer: Any) -> LoadedAdapter:
        """An adapter for `base`."""
        self.begun.append(order)
        observer.progress(LoadProgress(Tier.DRAM, 1, 2))
        await self.go.wait()
        if self.fails:
            raise self.fails
        one = trained("llama", 1, **ATTENTION)
        made = make_adapter(order.replica, order.digest, base, one.tensors, recipe(one.config))
        return LoadedAdapter(made, Tier.DRAM)


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
async def adapters() -> HandAdapters:
    """A loader of adapters that loads at once unless told."""
    return HandAdapters()


@pytest.fixture
async def replicas(engine: Engine, loader: HandLoader, adapters: HandAdapters) -> AsyncIterator[Replicas]:
    """A worker's replicas, unloaded at the end."""
    one = Replicas(engine, loader, adapters, memory_bytes=1 << 30, kv_bytes=1 << 20)  # type: ignore[arg-type]
    yield one
    loader.go.set()
    adapters.go.set()
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


async def test_what_a_token_of_a_prompt_has_cost_is_told_once_it_is_known(engine: Engine, replicas: Replicas) -> None:
    await loaded(replicas, OLD)
    assert [facts.prefill_token_s for facts in replicas.facts()] == [0.0]
    engine.submit(request("r", prompt(20), 1, on=OLD.replica))
    async with asyncio.timeout(WAIT_S):
        while not (known := engine.stats().replicas[OLD.replica].prefill_token_s):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    (facts,) = replicas.facts()
    assert facts.prefill_token_s == pytest.approx(known, rel=0.1)


EXACT = Order("m", "d1", "store:1", numerics=NumericsLevel.BATCH_INVARIANT)


async def test_a_replica_of_an_invariant_level_is_ready_once_it_is_proven(replicas: Replicas) -> None:
    await loaded(replicas, EXACT)
    await loaded(replicas, NEW)
    told = {facts.digest: (facts.numerics, len(facts.fingerprint)) for facts in replicas.facts()}
    assert told == {"d1": (NumericsLevel.BATCH_INVARIANT, 32), "d2": (NumericsLevel.FAST, 0)}


async def test_a_level_that_does_not_hold_fails_the_load_and_leaves_nothing_behind(
    engine: Engine, loader: HandLoader, replicas: Replicas
) -> None:
    loader.leaky = True
    with pytest.raises(Unsuitable) as refused:
        await loaded(replicas, EXACT)
    assert refused.value.reason == "NUMERICS_NOT_HELD"
    assert "deploy it with numerics fast" in refused.value.message
    assert (replicas.facts(), dict(engine.stats().replicas), loader.freed) == ((), {}, [EXACT])


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


async def test_a_worker_that_drains_sends_those_elsewhere_who_wait_for_a_load(
    replicas: Replicas, loader: HandLoader
) -> None:
    loader.go.clear()
    waiting = asyncio.create_task(loaded(replicas, NEW))
    async with asyncio.timeout(WAIT_S):
        while not loader.begun:  # noqa: ASYNC110  the loader is one of ours, played by hand
            await asyncio.sleep(0)
    replicas.drain()
    with pytest.raises(MeshError) as sent:
        await waiting
    assert sent.value.reason == "DRAINING"
    async with asyncio.timeout(WAIT_S):
        while replicas.facts():  # noqa: ASYNC110  as above
            await asyncio.sleep(0)


async def test_a_worker_that_drains_takes_no_version_any_more(replicas: Replicas) -> None:
    await loaded(replicas, OLD)
    replicas.drain()
    with pytest.raises(MeshError) as refused:
        await loaded(replicas, NEW)
    assert refused.value.reason == "DRAINING"


async def test_an_adapter_brings_its_base_and_a_second_one_joins_it(loader: HandLoader, replicas: Replicas) -> None:
    loader.go.clear()
    async with asyncio.timeout(WAIT_S), aclosing(replicas.load(A)) as events:
        assert await anext(events) == LoadProgress(Tier.DISK, 1, 2)  # the base's
        loader.go.set()
        told = [event async for event in events]
    assert told[-1] == Loaded(Tier.DISK, 0)  # the farther of the two
    await loaded(replicas, B)
    assert loader.begun == [BASE]
    assert {(f.model, f.base, f.beside) for f in replicas.facts()} == {
        ("m", "", ""),
        ("a", "d1", "m"),
        ("b", "d1", "m"),
    }


async def test_an_adapter_goes_on_whatever_replica_has_its_base(loader: HandLoader, replicas: Replicas) -> None:
    other = Order("other", "d1", "store:1")
    await loaded(replicas, other)
    await loaded(replicas, A)
    assert loader.begun == [other]
    await loaded(replicas, BASE)
    await loaded(replicas, B)
    assert {f.model: f.beside for f in replicas.facts() if f.base} == {"a": "other", "b": "m"}


async def test_a_base_that_is_unloaded_waits_for_its_adapters_and_takes_no_more(
    engine: Engine, loader: HandLoader, replicas: Replicas
) -> None:
    await loaded(replicas, A)
    going = asyncio.create_task(replicas.unload(BASE.replica))
    async with asyncio.timeout(WAIT_S):
        while ("m", "d1", ReplicaState.DRAINING) not in held(replicas):  # noqa: ASYNC110  as above
            await asyncio.sleep(0)
        engine.submit(request("r", prompt(8), 4, on=A.replica))
        later = asyncio.create_task(loaded(replicas, B))
        await asyncio.sleep(0)
        assert not going.done()
        await replicas.unload(A.replica)
        await going
        await later
    assert loader.begun == [BASE, BASE]
    assert held(replicas) == {("m", "d1", ReplicaState.READY), ("b", "b1", ReplicaState.READY)}


async def test_unloading_an_adapter_leaves_base_and_others(engine: Engine, replicas: Replicas) -> None:
    await loaded(replicas, A)
    await loaded(replicas, B)
    await replicas.unload(A.replica)
    assert {f.model for f in replicas.facts()} == {"m", "b"}
    engine.submit(request("r", prompt(8), 4, on=B.replica))
    engine.submit(request("s", prompt(8), 4, on=BASE.replica))
    with pytest.raises(UnknownReplica):
        engine.submit(request("t", prompt(8), 4, on=A.replica))


async def test_leaving_an_adapters_load_ends_the_base_that_it_alone_was_waiting_for(
    loader: HandLoader, replicas: Replicas
) -> None:
    loader.go.clear()
    async with aclosing(replicas.load(A)) as events:
        await anext(events)
        assert {(f.model, f.state) for f in replicas.facts()} == {
            ("a", ReplicaState.LOADING),
            ("m", ReplicaState.LOADING),
        }
    async with asyncio.timeout(WAIT_S):
        while replicas.facts():  # noqa: ASYNC110  facts are published, not awaited
            await asyncio.sleep(0.002)


async def test_leaving_an_adapters_load_leaves_the_base_to_others(adapters: HandAdapters, replicas: Replicas) -> None:
    await loaded(replicas, BASE)
    adapters.go.clear()
    async with aclosing(replicas.load(A)) as events:
        await anext(events)
    async with asyncio.timeout(WAIT_S):
        while len(replicas.facts()) > 1:  # noqa: ASYNC110  facts are published, not awaited
            await asyncio.sleep(0.002)
        await replicas.unload(BASE.replica)
    assert not replicas.facts()


async def test_an_adapter_that_cannot_be_loaded_leaves_no_trace(adapters: HandAdapters, replicas: Replicas) -> None:
    adapters.fails = Unsuitable("it repeats layers", reason="UNSUPPORTED_ADAPTER")
    with pytest.raises(Unsuitable, match="repeats layers"):
        await loaded(replicas, Order("a", "a1", "store:1", base="d1"))
    assert held(replicas) == {("", "d1", ReplicaState.READY)}
    await replicas.unload(ALONE.replica)
    assert not replicas.facts()


async def test_an_adapter_does_not_pass_for_a_level_that_its_base_does_not_keep(replicas: Replicas) -> None:
    await loaded(replicas, BASE)
    await loaded(replicas, replace(A, numerics=NumericsLevel.FAST))
    with pytest.raises(Unsuitable, match="deploy both alike") as refused:
        await loaded(replicas, replace(B, numerics=NumericsLevel.PATH_INVARIANT))
    assert refused.value.reason == "NUMERICS_NOT_HELD"
    assert {facts.model for facts in replicas.facts()} == {"m", "a"}
