"""Every process is stopped and started again, or emptied, while clients ask: nobody notices."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cli.cluster import ClusterOptions
from mesh.clients.gateway_records import MemberStatus
from mesh.facts import Kind
from tests.e2e.asking import until_model
from tests.e2e.conftest import SETTINGS, Running, running
from tests.e2e.library import Library
from tests.e2e.load import load

GENTLE = SETTINGS | {"WHIMBREL_DRAIN_S": "0.2"}
HELD = {"WHIMBREL_GRACE_S": "20"}  # answers are short here, but for a machine that is busy


async def _clusters(directory: Path, library: Library, *, gateways: int) -> AsyncIterator[Running]:
    """Two schedulers and two workers; "warm" stays loaded, "cold" goes when nobody asks."""
    settings = GENTLE | HELD
    options = ClusterOptions(directory, schedulers=2, gateways=gateways, settings=settings, grace_s=30.0)
    async with running(options, library, ("llama", "qwen2")) as cluster:
        await cluster.deployed("llama", "warm")
        await cluster.deployed("qwen2", "cold", keep_alive_s=0.0)
        yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rolled(tmp_path_factory: pytest.TempPathFactory, library: Library) -> AsyncIterator[Running]:
    """With one gateway, which stays."""
    async for cluster in _clusters(tmp_path_factory.mktemp("rolled"), library, gateways=1):
        yield cluster


@pytest_asyncio.fixture(loop_scope="session")
async def doubled(tmp_path: Path, library: Library) -> AsyncIterator[Running]:
    """With two gateways behind the clients' one channel."""
    async for cluster in _clusters(tmp_path, library, gateways=2):
        yield cluster


async def test_a_worker_is_emptied_while_clients_ask_and_takes_work_again(rolled: Running) -> None:
    async with load(rolled.cluster.gateway_addresses, ("warm", "cold"), clients=3) as made:
        await made.more(4)
        made.going_on = "drain"
        states = [left async for left in rolled.client.drain("worker-1")]
        assert states[-1].replicas == 0
        await made.more(6)
        workers = await _workers(rolled)
        assert workers["worker-1"].draining
        assert not (workers["worker-1"].worker and workers["worker-1"].worker.replicas)
        await rolled.client.undrain("worker-1")
        made.going_on = "drain of the other"
        assert [left async for left in rolled.client.drain("worker-2")][-1].replicas == 0
        await made.more(6)
        await rolled.client.undrain("worker-2")
    assert made.failures == []


@pytest.mark.parametrize("kind", [Kind.SCHEDULER, Kind.STORE])
async def test_a_scheduler_and_a_store_are_started_again_while_clients_ask(rolled: Running, kind: Kind) -> None:
    async with load(rolled.cluster.gateway_addresses, ("warm", "cold"), clients=3) as made:
        await made.more(4)
        for process in [one for one in rolled.cluster.processes if one.program.kind is kind]:
            made.going_on = process.program.id
            await rolled.cluster.restart(process.program.id)
            await made.more(6)
    assert made.failures == []


@pytest.mark.slow
async def test_every_process_is_started_again_while_clients_ask(doubled: Running) -> None:
    async with load(doubled.cluster.gateway_addresses, ("warm", "cold"), clients=4) as made:
        await made.more(10)
        for process in doubled.cluster.processes:
            made.going_on = process.program.id
            await doubled.cluster.restart(process.program.id)
            await made.more(20)
    assert made.failures == []
    await until_model(doubled.client, "warm", lambda model: bool(model.replicas))


async def _workers(rolled: Running) -> dict[str, MemberStatus]:
    return {member.id: member for member in await rolled.client.cluster() if member.kind is Kind.WORKER}
