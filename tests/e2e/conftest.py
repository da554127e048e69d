"""The clusters that these tests ask: one for all that only read, and what it takes to start others quickly."""

import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import torch

from cli.cluster import ClusterOptions, LocalCluster
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import Model
from tests.e2e.asking import deploy
from tests.e2e.sources import Sources

HERE = Path(__file__).parent
KV_BYTES = 16 << 20  # 2048 tokens of the larger model take 13 MB
SETTINGS = {
    "WHIMBREL_DRAIN_S": "0",
    "WHIMBREL_LEASE_S": "3",
    "WHIMBREL_KV_BYTES": str(KV_BYTES),
    "WHIMBREL_DRAM_BYTES": str(1 << 30),
    "OMP_NUM_THREADS": "1",
}
SETTINGS_OF = {"store": {"WHIMBREL_IMPORTS": "3"}}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One event loop for all of these tests: the clusters live on it."""
    for item in items:
        if item.path.is_relative_to(HERE) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@dataclass(frozen=True, slots=True)
class Shared:
    """The cluster for tests that leave it as it was: two workers, and models deployed under their sources' names."""

    cluster: LocalCluster
    client: GatewayClient
    sources: Sources

    async def deployed(self, name: str) -> Model:
        """The model of one of our sources, imported and deployed when first asked for."""
        known = {model.name: model for model in await self.client.list()}
        return known.get(name) or await deploy(self.client, name, source=str(self.sources.of(name)))

    async def alias(self, name: str, alias: str, keep_alive_s: float | None = None) -> Model:
        """Another model of the same checkpoint."""
        model = await self.deployed(name)
        return await deploy(self.client, alias, checkpoint=model.checkpoint.digest, keep_alive_s=keep_alive_s)

    @property
    def store_dir(self) -> Path:
        """Where the store keeps checkpoints, each under its digest."""
        return self.cluster.options.data_dir / "store"

    async def seed(self, data_dir: Path, *names: str) -> dict[str, str]:
        """Puts checkpoints where another cluster's store will find them; the digests by name. Saves an import each."""
        digests = {name: (await self.deployed(name)).checkpoint.digest for name in names}
        for digest in digests.values():
            shutil.copytree(self.store_dir / digest, data_dir / "store" / digest)
        return digests


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """The references must not take the cores from the workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Models to deploy."""
    return Sources(tmp_path_factory.mktemp("sources"))


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def shared(tmp_path_factory: pytest.TempPathFactory, sources: Sources) -> AsyncIterator[Shared]:
    """See Shared."""
    options = ClusterOptions(tmp_path_factory.mktemp("shared"), settings=SETTINGS, settings_of=SETTINGS_OF)
    async with LocalCluster(options) as cluster, cluster.client() as client:
        yield Shared(cluster, client, sources)
