"""Answers that go on elsewhere: from a worker that is emptied, and as a scheduler has it that came after they began."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from cli.cluster import ClusterOptions
from mesh.clients.gateway_records import AnswerEvent, Delta
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


class Reader:
    """Of one answer: `whole` is all of it in the end, `begun` is set at its first token."""

    def __init__(self, events: AsyncGenerator[AnswerEvent]) -> None:
        self._events, self.begun = events, asyncio.Event()
        self.whole = asyncio.create_task(self._read())

    async def _read(self) -> Answer:
        read: list[AnswerEvent] = []
        async with aclosing(self._events):
            async for event in self._events:
                read.append(event)
                if isinstance(event, Delta):
                    self.begun.set()
        return Answer(tuple(read))


@asynccontextmanager
async def answer(mesh: Running, model: str) -> AsyncIterator[Reader]:
    """A long one that has begun, under the id "long"."""
    reader = Reader(mesh.client.generate(model, PROMPT, WISHES, request_id="long", within_s=PATIENCE_S))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await reader.begun.wait()
        yield reader
    finally:
        reader.whole.cancel()
        await asyncio.wait([reader.whole])


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
    async with answer(mesh, "emptied") as reader:
        at = await where(mesh)
        states = [left async for left in mesh.client.drain(at)]
        assert states[-1].requests == 0
        found = await reader.whole
    await mesh.client.undrain(at)
    assert ("drain", at, WORKERS[at == WORKERS[0]]) in went(found)
    await same_in_peace(mesh, "emptied", found)


async def test_a_scheduler_that_came_after_an_answer_had_begun_moves_it_all_the_same(mesh: Running) -> None:
    await everywhere(mesh, "outliving")
    async with answer(mesh, "outliving") as reader:
        at, former = await where(mesh), await leader(mesh)
        again = asyncio.create_task(mesh.cluster.restart(former))
        await until(partial(leader, mesh), lambda holder: holder not in ("", former))
        assert await where(mesh) == at
        moved = await mesh.client.move("long")
        assert moved.from_worker_id == at
        found = await reader.whole
        await again
    assert ("asked", at, moved.to_worker_id) in went(found)
    await same_in_peace(mesh, "outliving", found)


def went(found: Answer) -> list[tuple[str, str, str]]:
    """Why, from where and where to it went on."""
    return [(move.reason, move.from_worker_id, move.to_worker_id) for move in found.finished.moves]


async def same_in_peace(mesh: Running, model: str, found: Answer) -> None:
    """The answer is what it is when nothing moves, and nothing is left of it anywhere."""
    async with answer(mesh, model) as reader:
        peace = await reader.whole
    assert (found.token_ids, found.text) == (peace.token_ids, peace.text)
    for worker_id in WORKERS:
        if await replica_status(mesh.cluster, worker_id, model):
            await until(partial(replica_status, mesh.cluster, worker_id, model), is_idle)
    assert await mesh.client.requests() == ()
