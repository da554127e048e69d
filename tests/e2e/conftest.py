"""The clusters that these tests ask: one for all that only read, and what it takes to start others quickly."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import torch

from cli.cluster import ClusterOptions, LocalCluster
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import Model
from tests.e2e.asking import deploy
from tests.e2e.library import BIG, KINDS, Library

HERE = Path(__file__).parent
SETTINGS = {
    "WHIMBREL_DRAIN_S": "0",
    "WHIMBREL_LEASE_S": "3",
    "WHIMBREL_KV_BYTES": str(16 << 20),  # 2048 tokens of the larger model take 13 MB
    "WHIMBREL_DRAM_BYTES": str(1 << 30),
    "OMP_NUM_THREADS": "1",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One event loop for all of these tests: the clusters live on it."""
    for item in items:
        if item.path.is_relative_to(HERE) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@dataclass(frozen=True, slots=True)
class Running:
    """A cluster, a client of its gateway, and the library that its store was filled from."""

    cluster: LocalCluster
    client: GatewayClient
    library: Library

    @property
    def address(self) -> str:
        """The gateway's."""
        return self.cluster.gateway_address

    @property
    def store_dir(self) -> Path:
        """Where the store keeps checkpoints, each under its digest."""
        return self.cluster.options.data_dir / "store"

    async def deployed(self, checkpoint: str, name: str = "", keep_alive_s: float | None = None) -> Model:
        """A model of a checkpoint of the library, by default under the checkpoint's name; deployed only once."""
        name = name or checkpoint
        known = {model.name: model for model in await self.client.list()}
        return known.get(name) or await deploy(
            self.client, name, checkpoint=self.library.digest(checkpoint), keep_alive_s=keep_alive_s
        )


@asynccontextmanager
async def running(options: ClusterOptions, library: Library, checkpoints: Sequence[str]) -> AsyncIterator[Running]:
    """A cluster whose store has these checkpoints on its disk."""
    library.put(options.data_dir / "store", checkpoints)
    async with LocalCluster(options) as cluster, cluster.client() as client:
        yield Running(cluster, client, library)


@pytest.fixture(scope="package")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """Models to serve. torch gets one thread here: the workers want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Library(tmp_path_factory.mktemp("library"))
    torch.set_num_threads(threads)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def shared(tmp_path_factory: pytest.TempPathFactory, library: Library) -> AsyncIterator[Running]:
    """A cluster of two workers, for tests that leave it as it was but for the models that they add."""
    options = ClusterOptions(tmp_path_factory.mktemp("shared"), settings=SETTINGS)
    async with running(options, library, (*KINDS, BIG)) as cluster:
        yield cluster
