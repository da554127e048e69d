"""Answers that go on elsewhere: from a worker that is emptied, and as a scheduler has it that came after they began."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from cli.cluster import ClusterOptions
from mesh.errors import Unreachable
from mesh.facts import NumericsLevel, ReplicaState
from mesh.requests import RequestState
from mesh.state.keys import Keys
from tests.e2e.asking import (
    LONG,
    PATIENCE_S,
    PROMPT,
    Answer,
    deploy,
    is_idle,
    replica_status,
    until,
    until_model,
    whole,
)
from tests.e2e.conftest import SETTINGS, Running, running
from tests.e2e.library import Library

WISHES = replace(LONG, max_tokens=1200)
WORKERS = ("worker-1", "worker-2")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mesh(tmp_path_factory: pytest.TempPathFactory, library: Library) -> AsyncIterator[Running]:
    """A cluster of two workers and two schedulers."""
    options = ClusterOptions(tmp_path_factory.mktemp("emptying"), schedulers=2, settings=SETTINGS)
    async with running(options, library, ("llama",)) as cluster:
        yield cluster


async def everywhere(mesh: Running, name: str) -> None:
    """A model that both workers have."""
    level = NumericsLevel.PATH_INVARIANT
    await deploy(mesh.client, name, checkpoint=mesh.library.digest("llama"), numerics=level)
    await mesh.client.update(name, min_replicas=2)
    ready = ReplicaState.READY
    await until_model(mesh.client, name, lambda model: sum(one.state is ready for one in model.replicas) == 2)


@asynccontextmanager
async def answer(mesh: Running, model: str) -> AsyncIterator[asyncio.Task[Answer]]:
    """A long one, to its end, under the id "long"."""
    events = mesh.client.generate(model, PROMPT, WISHES, request_id="long", within_s=PATIENCE_S)
    task = asyncio.create_task(whole(events))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def where(mesh: Running) -> str:
    """The worker that it runs on, as soon as there is one that says so."""

    async def look() -> tuple[RequestState, ...]:
        with suppress(Unreachable):
            return await mesh.client.requests()
        return ()

    found = await until(look, lambda states: any(one.request_id == "long" and one.worker_id for one in states))
    return next(one.worker_id for one in found)


async def leader(mesh: Running) -> str:
    """The scheduler that leads; empty where none does."""
    async with Redis.from_url(mesh.cluster.redis_url, decode_responses=True) as redis:
        return str(await redis.hget(Keys("default").leader, "holder") or "")


async def test_a_worker_that_is_emptied_sends_its_answers_elsewhere_in_their_midst(mesh: Running) -> None:
    await everywhere(mesh, "emptied")
    async with answer(mesh, "emptied") as task:
        at = await where(mesh)
        states = [left async for left in mesh.client.drain(at)]
        assert states[-1].requests == 0
        found = await task
    await mesh.client.undrain(at)
    (move,) = found.finished.moves
    assert (move.reason, move.from_worker_id, move.to_worker_id) == ("drain", at, WORKERS[at == WORKERS[0]])
    await same_in_peace(mesh, "emptied", found)


async def test_a_scheduler_that_came_after_an_answer_had_begun_moves_it_all_the_same(mesh: Running) -> None:
    await everywhere(mesh, "outliving")
    async with answer(mesh, "outliving") as task:
        at, former = await where(mesh), await leader(mesh)
        again = asyncio.create_task(mesh.cluster.restart(former))
        await until(partial(leader, mesh), lambda holder: holder not in ("", former))
        assert await where(mesh) == at
        moved = await mesh.client.move("long")
        assert moved.from_worker_id == at
        found = await task
        await again
    (move,) = found.finished.moves
    assert (move.reason, move.to_worker_id) == ("asked", moved.to_worker_id)
    await same_in_peace(mesh, "outliving", found)


async def same_in_peace(mesh: Running, model: str, found: Answer) -> None:
    """The answer is what it is when nothing moves, and nothing is left of it anywhere."""
    async with answer(mesh, model) as task:
        peace = await task
    assert peace.finished.moves == ()
    assert (found.token_ids, found.text) == (peace.token_ids, peace.text)
    for worker_id in WORKERS:
        if await replica_status(mesh.cluster, worker_id, model):
            await until(partial(replica_status, mesh.cluster, worker_id, model), is_idle)
    assert await mesh.client.requests() == ()
