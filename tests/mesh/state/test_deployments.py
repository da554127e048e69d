"""Hints of what is deployed: everything at first, then what changes, and again after Redis was gone."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from mesh.facts import CheckpointFacts, Kind, ModelEntry, StoreFacts, Tier
from mesh.state import deployments as module
from mesh.state.catalogue import Catalogue
from mesh.state.connection import State
from mesh.state.deployments import deployments, holders
from mesh.state.leases import Membership
from tests.mesh.state.conftest import WAIT_S, Breakable, member
from tests.mesh.state.test_catalogue import SUMMARY, entry


@pytest.fixture
async def heard(state: State) -> AsyncIterator[AsyncGenerator[ModelEntry, None]]:
    """What a reader of this test's cluster gets."""
    async with aclosing(deployments(state)) as entries:
        yield entries


async def following(entries: AsyncGenerator[ModelEntry, None]) -> ModelEntry:
    """The next one."""
    async with asyncio.timeout(WAIT_S):
        return await anext(entries)


async def test_what_was_deployed_last_comes_first_and_then_what_is_deployed_or_changed(
    state: State, heard: AsyncGenerator[ModelEntry, None]
) -> None:
    catalogue = Catalogue(state)
    await catalogue.add(replace(entry("old"), updated_s=1.0))
    await catalogue.add(replace(entry("new"), updated_s=9.0))
    assert [(await following(heard)).name for _ in range(2)] == ["new", "old"]
    added = await catalogue.add(entry("later"))
    assert (await following(heard)).name == "later"
    await catalogue.replace(replace(added, keep_alive_s=3.0))
    changed = await following(heard)
    assert (changed.name, changed.keep_alive_s) == ("later", 3.0)


async def test_after_redis_was_gone_everything_comes_again(
    breakable: Breakable, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    async with State(breakable.url, cluster) as state, aclosing(deployments(state)) as entries:
        await Catalogue(state).add(entry("before"))
        assert (await following(entries)).name == "before"
        next_one = asyncio.ensure_future(following(entries))
        await breakable.stop()
        await breakable.start()
        async with State(breakable.url, cluster) as again:
            await Catalogue(again).add(entry("after"))
        assert (await next_one).name == "after"


async def test_the_holders_are_the_stores_with_every_byte_on_their_node(state: State) -> None:
    def store(name: str, tier: Tier) -> Membership:
        facts = StoreFacts(0, 0, 0, (CheckpointFacts(SUMMARY.digest, SUMMARY.bytes, tier),))
        return Membership(state, replace(member(name, kind=Kind.STORE), store=facts), 10.0)

    worker = Membership(state, member("w1"), 10.0)
    async with store("disk", Tier.DISK), store("dram", Tier.DRAM), store("part", Tier.ORIGIN), worker:
        assert {found.id for found in await holders(state, SUMMARY.digest)} == {"disk", "dram"}
        assert await holders(state, "f" * 64) == []
