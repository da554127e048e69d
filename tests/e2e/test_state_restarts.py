"""A Redis that keeps its data is stopped and started again while clients ask."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from mesh.clients.channel import connect
from mesh.clients.gateway import GatewayClient
from mesh.facts import Kind
from tests.cluster import process
from tests.e2e.asking import PROMPT, SHORT, deploy, until, whole
from tests.e2e.library import Library
from tests.e2e.load import load
from tests.mesh.state.conftest import Breakable

LEASE_S = 2.0


@dataclass(frozen=True, slots=True)
class Mesh:
    """One of each process, on a Redis that the test stops and starts."""

    redis: Breakable
    gateway: str
    client: GatewayClient


@pytest_asyncio.fixture(loop_scope="session")
async def mesh(library: Library) -> AsyncIterator[Mesh]:
    """With the models "warm" and "cold", of which the first is loaded."""
    directory = Path(tempfile.mkdtemp(prefix="whimbrel-test-state-"))
    library.put(directory / "store", ("llama", "qwen2"))
    redis = Breakable(directory, keeps=True)
    await redis.start()
    shared = {"redis_url": redis.url, "lease_s": LEASE_S, "grace_s": 20}
    own: dict[Kind, dict[str, object]] = {
        Kind.STORE: {"store_dir": directory / "store", "dram_bytes": 1 << 28},
        Kind.WORKER: {"kv_bytes": 16 << 20, "memory_bytes": 1 << 30},
    }
    try:
        async with AsyncExitStack() as stack:
            started = {
                kind: await stack.enter_async_context(process(kind, **shared, **own.get(kind, {}))) for kind in Kind
            }
            gateway = started[Kind.GATEWAY].address
            client = GatewayClient(await stack.enter_async_context(connect(gateway)), gateway)
            await until(client.cluster, lambda members: len(members) == len(Kind))
            await deploy(client, "warm", checkpoint=library.digest("llama"), keep_alive_s=3600.0)
            await deploy(client, "cold", checkpoint=library.digest("qwen2"), keep_alive_s=0.0)
            yield Mesh(redis, gateway, client)
    finally:
        await redis.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.slow
async def test_warm_requests_are_answered_without_redis_and_cold_ones_once_it_is_back(mesh: Mesh) -> None:
    async with load([mesh.gateway], ("warm",), clients=2) as made:
        await made.more(4)
        made.going_on = "without Redis"
        await mesh.redis.stop()
        await made.more(10)
        cold = asyncio.create_task(whole(mesh.client.generate("cold", PROMPT, SHORT, within_s=60.0)))
        await asyncio.sleep(2 * LEASE_S)  # every lease lapses
        assert not cold.done()
        made.going_on = "with it again"
        await mesh.redis.start()
        assert (await cold).finished.completion_tokens
        await made.more(10)
    assert made.failures == []
    members = {(member.kind, member.id) for member in await mesh.client.cluster()}
    assert {kind for kind, _ in members} == set(Kind)
    assert {model.name for model in await mesh.client.list()} == {"warm", "cold"}
