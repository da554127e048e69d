"""Watching: what is there, a bookmark, then what changes, until the process drains."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from mesh.facts import CheckpointSummary, ClusterFacts, ModelEntry
from mesh.state.catalogue import Catalogue
from mesh.state.connection import State
from mesh.state.mirror import Mirror
from services.gateway.watch import Change, Step, watch

WAIT_S = 60.0
SUMMARY = CheckpointSummary("d1", 1000, "LlamaForCausalLM", "bfloat16", 512, 6, 39, 64)
Changes = AsyncGenerator[Change[ModelEntry], None]


def entry(name: str) -> ModelEntry:
    """A model."""
    return ModelEntry(name, SUMMARY, "/models", None, created_s=0.0, updated_s=0.0)


@pytest.fixture
async def mirror(state: State) -> AsyncIterator[Mirror]:
    """The facts of this test's cluster."""
    async with Mirror(state).running() as mirror:
        yield mirror


def watching(mirror: Mirror, draining: asyncio.Event | None = None) -> Changes:
    """Watches the models."""

    def look(facts: ClusterFacts) -> dict[str, ModelEntry]:
        return dict(facts.models)

    changes = watch(mirror, look, draining or asyncio.Event())
    assert isinstance(changes, AsyncGenerator)
    return changes


async def following(changes: Changes) -> Change[ModelEntry]:
    """The next change, in good time."""
    async with asyncio.timeout(WAIT_S):
        return await anext(changes)


async def test_what_is_there_comes_first_then_a_bookmark_then_changes(state: State, mirror: Mirror) -> None:
    catalogue = Catalogue(state)
    first = await catalogue.add(entry("a"))
    assert await mirror.until(lambda facts: "a" in facts.models, WAIT_S)
    async with aclosing(watching(mirror)) as changes:
        assert await following(changes) == Change(Step.EXISTING, first)
        assert await following(changes) == Change(Step.BOOKMARK, None)
        second = await catalogue.add(entry("b"))
        assert await following(changes) == Change(Step.UPDATED, second)
        newer = await catalogue.replace(replace(first, keep_alive_s=5.0))
        assert await following(changes) == Change(Step.UPDATED, newer)
        await catalogue.remove("a")
        assert await following(changes) == Change(Step.DELETED, newer)


async def test_an_empty_cluster_gives_only_the_bookmark(mirror: Mirror) -> None:
    async with aclosing(watching(mirror)) as changes:
        assert await following(changes) == Change(Step.BOOKMARK, None)


async def test_a_slow_reader_sees_where_things_stand_and_not_each_step(state: State, mirror: Mirror) -> None:
    catalogue = Catalogue(state)
    async with aclosing(watching(mirror)) as changes:
        await following(changes)
        entries = [await catalogue.add(entry("a"))]
        for number in range(3):
            entries.append(await catalogue.replace(replace(entries[-1], keep_alive_s=float(number))))
        assert await mirror.until(lambda facts: facts.models.get("a") == entries[-1], WAIT_S)
        assert await following(changes) == Change(Step.UPDATED, entries[-1])


async def test_what_changes_while_the_first_state_is_sent_is_not_lost(state: State, mirror: Mirror) -> None:
    catalogue = Catalogue(state)
    first = await catalogue.add(entry("a"))
    assert await mirror.until(lambda facts: "a" in facts.models, WAIT_S)
    async with aclosing(watching(mirror)) as changes:
        assert await following(changes) == Change(Step.EXISTING, first)
        second = await catalogue.add(entry("b"))
        assert await mirror.until(lambda facts: "b" in facts.models, WAIT_S)
        assert await following(changes) == Change(Step.BOOKMARK, None)
        assert await following(changes) == Change(Step.UPDATED, second)


async def test_a_watch_ends_when_the_process_drains(mirror: Mirror) -> None:
    draining = asyncio.Event()
    async with aclosing(watching(mirror, draining)) as changes:
        await following(changes)
        waiting = asyncio.create_task(following(changes))
        await asyncio.sleep(0)
        draining.set()
        with pytest.raises(StopAsyncIteration):
            await waiting


async def test_changes_of_what_is_not_looked_at_are_not_told(state: State, mirror: Mirror) -> None:
    catalogue = Catalogue(state)

    def look(facts: ClusterFacts) -> dict[str, ModelEntry]:
        return {name: model for name, model in facts.models.items() if name == "wanted"}

    changes = watch(mirror, look, asyncio.Event())
    assert (await anext(changes)).kind is Step.BOOKMARK
    await catalogue.add(entry("other"))
    wanted = await catalogue.add(entry("wanted"))
    async with asyncio.timeout(WAIT_S):
        assert await anext(changes) == Change(Step.UPDATED, wanted)
