"""Drains as their callers see them: what is left, until nothing is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace

import pytest

from mesh.errors import InvalidRequest, NotFound, Unreachable
from mesh.facts import (
    CheckpointFacts,
    CheckpointSummary,
    Kind,
    Member,
    ModelEntry,
    ReplicaFacts,
    ReplicaState,
    StoreFacts,
    Tier,
    WorkerFacts,
)
from mesh.serve import Ground
from mesh.state.catalogue import Catalogue
from mesh.state.connection import State
from mesh.state.leases import Membership
from mesh.state.mirror import Mirror
from services.gateway.draining import Draining, Left

WAIT_S = 60.0
SUMMARY = CheckpointSummary("d1", 1000, "LlamaForCausalLM", "bfloat16", 512, 6, 39, 64)


class Bench:
    """A gateway's drains, and processes for it to drain."""

    def __init__(self, state: State, mirror: Mirror, stack: AsyncExitStack, me: Membership) -> None:
        self.state, self.mirror, self._stack = state, mirror, stack
        self.ground = Ground(state, me, asyncio.Event(), asyncio.get_running_loop().create_future())
        self.draining = Draining(self.ground, mirror)

    async def worker(self, worker_id: str, node: str, *running: int) -> Membership:
        """One that has a replica for each of `running`, with so many requests."""
        return await self._joined(Member(Kind.WORKER, worker_id, node, f"{worker_id}:1", worker=workers(*running)))

    async def store(self, store_id: str, node: str, *digests: str) -> None:
        """One that has these checkpoints on its disk."""
        held = tuple(CheckpointFacts(digest, 1000, Tier.DISK) for digest in digests)
        await self._joined(Member(Kind.STORE, store_id, node, f"{store_id}:1", store=StoreFacts(0, 0, 0, held)))

    async def _joined(self, member: Member) -> Membership:
        membership = await self._stack.enter_async_context(Membership(self.state, member, lease_s=60.0))
        assert await self.mirror.until(lambda facts: f"{member.kind}/{member.id}" in facts.members, WAIT_S)
        return membership


def workers(*running: int) -> WorkerFacts:
    """With a replica for each of `running`."""
    replicas = (ReplicaFacts(f"m{n}", f"d{n}", ReplicaState.READY, 10, one) for n, one in enumerate(running))
    return WorkerFacts("host", 100, 2, 4, tuple(replicas))


@pytest.fixture
async def bench(state: State) -> AsyncIterator[Bench]:
    """A gateway's parts."""
    async with AsyncExitStack() as stack:
        mirror = await stack.enter_async_context(Mirror(state).running())
        me = await stack.enter_async_context(Membership(state, Member(Kind.GATEWAY, "g", "n0", "g:1"), lease_s=60.0))
        yield Bench(state, mirror, stack, me)


async def test_a_drain_says_what_is_left_and_ends_when_nothing_is(bench: Bench) -> None:
    one = await bench.worker("w1", "n1", 2, 0)
    await bench.worker("w2", "n1", 5)
    async with asyncio.timeout(WAIT_S), aclosing(bench.draining.drain("w1", "")) as states:
        assert await anext(states) == Left(2, 2, ())
        assert bench.mirror.facts.drains == {"worker/w1"}
        one.publish(replace(one.member, worker=workers(2)))
        assert await anext(states) == Left(1, 2, ())
        one.publish(replace(one.member, worker=workers()))
        assert [left async for left in states] == [Left(0, 0, ())]


async def test_a_nodes_drain_names_models_that_only_its_store_has(bench: Bench) -> None:
    await bench.worker("w1", "n1", 1)
    await bench.worker("w2", "n1", 1, 1)
    await bench.worker("w3", "n2", 1)
    await bench.store("s1", "n1", "d1", "d2")
    await bench.store("s2", "n2", "d2")
    for name, digest in (("alone", "d1"), ("copied", "d2"), ("nowhere", "d3")):
        summary = replace(SUMMARY, digest=digest)
        await Catalogue(bench.state).add(ModelEntry(name, summary, "/models", None, created_s=0.0, updated_s=0.0))
    assert await bench.mirror.until(lambda facts: len(facts.models) == 3, WAIT_S)
    async with asyncio.timeout(WAIT_S), aclosing(bench.draining.drain("", "n1")) as states:
        assert await anext(states) == Left(3, 3, ("alone",))


async def test_a_drain_outlives_its_caller_until_it_is_undone(bench: Bench) -> None:
    await bench.worker("w1", "n1", 1)
    async with aclosing(bench.draining.drain("w1", "")) as states:
        await anext(states)
    assert bench.mirror.facts.drains == {"worker/w1"}
    await bench.draining.undrain("w1", "")
    assert await bench.mirror.until(lambda facts: not facts.drains, WAIT_S)
    with pytest.raises(NotFound) as again:
        await bench.draining.undrain("w1", "")
    assert again.value.reason == "NOT_DRAINED"


async def test_what_is_not_there_is_not_drained(bench: Bench) -> None:
    for target in (("w1", ""), ("", "n9")):
        with pytest.raises(NotFound, match=r"worker w1|node n9"):
            await anext(bench.draining.drain(*target))
    with pytest.raises(InvalidRequest):
        await anext(bench.draining.drain("", ""))
    assert not bench.mirror.facts.drains


async def test_a_gateway_that_ends_says_that_the_drain_goes_on(bench: Bench) -> None:
    await bench.worker("w1", "n1", 1)
    async with asyncio.timeout(WAIT_S), aclosing(bench.draining.drain("w1", "")) as states:
        await anext(states)
        bench.ground.draining.set()
        with pytest.raises(Unreachable) as ending:
            await anext(states)
    assert ending.value.reason == "DRAINING"
