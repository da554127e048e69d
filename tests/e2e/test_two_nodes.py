"""A worker on a node whose own store has nothing yet: the bytes come from the other node's store, or from an origin."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from cli.cluster import ClusterOptions
from mesh.checkpoint.verify import verify_checkpoint
from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.errors import NotFound, Unsuitable
from mesh.facts import Kind
from mesh.requests import StartKind
from tests.cluster import process
from tests.e2e.asking import ask, deploy, until, until_model
from tests.e2e.conftest import SETTINGS, Running, running
from tests.e2e.library import Library

FAR = "far-node"


@dataclass(frozen=True, slots=True)
class TwoNodes:
    """The cluster, whose worker is on the far node; the directory of that node's store."""

    mesh: Running
    far_dir: Path


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def nodes(tmp_path_factory: pytest.TempPathFactory, library: Library) -> AsyncIterator[TwoNodes]:
    """A store with llama on the near node; beside the worker one with nothing, but for an origin that has qwen2."""
    root = tmp_path_factory.mktemp("nodes")
    library.put(root / "origin", ["qwen2"])
    options = ClusterOptions(
        root / "near", workers=1, settings=SETTINGS, settings_of={"worker": {"WHIMBREL_NODE": FAR}}
    )
    async with running(options, library, ["llama"]) as mesh:
        far = {"redis_url": mesh.cluster.redis_url, "node": FAR, "id": "far", "store_dir": root / "far"}
        async with process(Kind.STORE, **far, dram_bytes=1 << 28, origins=root / "origin"):
            await until(mesh.client.cluster, lambda members: any(member.id == "far" for member in members))
            yield TwoNodes(mesh, root / "far")


async def test_a_worker_loads_through_its_own_nodes_store_which_fetches_from_the_other(nodes: TwoNodes) -> None:
    await nodes.mesh.deployed("llama")
    first = await ask(nodes.mesh.client, "llama")
    assert first.started.start_kind is StartKind.ORIGIN
    assert (await ask(nodes.mesh.client, "llama")).started.start_kind is StartKind.WARM
    digest = nodes.mesh.library.digest("llama")
    assert verify_checkpoint(nodes.far_dir / digest).digest == digest


async def test_a_checkpoint_that_only_an_origin_has_is_deployed_by_its_digest(nodes: TwoNodes) -> None:
    digest = nodes.mesh.library.digest("qwen2")
    await deploy(nodes.mesh.client, "from-afar", checkpoint=digest)
    answer = await ask(nodes.mesh.client, "from-afar")
    assert answer.started.start_kind is StartKind.ORIGIN
    assert answer.token_ids
    assert verify_checkpoint(nodes.far_dir / digest).digest == digest


async def test_a_store_that_lost_its_disk_learns_again_from_its_origin(nodes: TwoNodes) -> None:
    digest, client = nodes.mesh.library.digest("qwen2"), nodes.mesh.client
    await deploy(client, "lost", checkpoint=digest, keep_alive_s=0.0)
    await ask(client, "lost")
    await until_model(client, "lost", lambda model: not model.replicas)
    await client.delete("from-afar")
    (far,) = [member for member in await client.cluster() if member.id == "far"]
    channels = Channels()
    try:
        await until(partial(deleted, StoreClient(channels), far.address, digest), bool)
    finally:
        await channels.close()
    assert (await ask(client, "lost")).started.start_kind is StartKind.ORIGIN


async def deleted(stores: StoreClient, address: str, digest: str) -> bool:
    """Whether the store has let go of it: it does once no worker maps it any more."""
    try:
        await stores.delete(address, digest)
    except Unsuitable:
        return False
    return True


async def test_a_digest_that_nobody_has_is_not_deployed(nodes: TwoNodes) -> None:
    with pytest.raises(NotFound) as missing:
        await deploy(nodes.mesh.client, "nothing", checkpoint="0" * 64)
    assert missing.value.reason == "UNKNOWN_CHECKPOINT"
