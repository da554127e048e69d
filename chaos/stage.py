"""The cluster that all this happens to: two nodes, and models at numerics levels at which equality is exact."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.redis import Valkey
from cli.cluster import ClusterOptions, LocalCluster
from demo.models import DEMO_MODEL, write_tiny
from mesh.clients.gateway import GatewayClient
from mesh.facts import NumericsLevel

NEAR, FAR = "near", "far"
LEASE_S = 3.0
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "WHIMBREL_LEASE_S": str(LEASE_S),
    "WHIMBREL_DRAIN_S": "0",
    "WHIMBREL_GRACE_S": "1",
    "WHIMBREL_KV_BYTES": str(48 << 20),
    "WHIMBREL_MEMORY_BYTES": str(1 << 30),
    "WHIMBREL_HOST_KV_BYTES": str(32 << 20),
    "WHIMBREL_DRAM_BYTES": str(256 << 20),
}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model of the run: its name, which demo.models kind it is (empty: the trained one), its level."""

    name: str
    kind: str
    numerics: NumericsLevel


MODELS = (
    ServedModel("trained", "", NumericsLevel.PATH_INVARIANT),
    ServedModel("batched", "llama", NumericsLevel.BATCH_INVARIANT),
    ServedModel("opaque", "lfm2", NumericsLevel.PATH_INVARIANT),
)


def sources(directory: Path) -> Mapping[str, Path]:
    """Each model's Hugging Face directory, the random ones made in `directory`."""
    return {
        model.name: write_tiny(model.kind, directory / model.name) if model.kind else DEMO_MODEL for model in MODELS
    }


@asynccontextmanager
async def stormy(
    directory: Path, workers: int, origins: Mapping[str, Path]
) -> AsyncIterator[tuple[LocalCluster, Valkey]]:
    """Two stores, two gateways, two schedulers and `workers`, half of them on each node; every model is deployed."""
    async with Valkey(directory).running() as valkey:
        far = {f"worker-{number}": {"WHIMBREL_NODE": FAR} for number in range(2, workers + 1, 2)}
        options = ClusterOptions(
            directory,
            workers=workers,
            schedulers=2,
            gateways=2,
            stores=2,
            redis_url=valkey.url,
            settings={**SETTINGS, "WHIMBREL_NODE": NEAR},
            settings_of={"store-2": {"WHIMBREL_NODE": FAR}, **far},
        )
        async with LocalCluster(options) as cluster, cluster.client() as client:
            await _deploy(client, origins)
            yield cluster, valkey


@asynccontextmanager
async def quiet(directory: Path, origins: Mapping[str, Path]) -> AsyncIterator[LocalCluster]:
    """Two workers and one of each other process, and nothing happens to them."""
    options = ClusterOptions(directory, workers=2, settings=SETTINGS)
    async with LocalCluster(options) as cluster, cluster.client() as client:
        await _deploy(client, origins)
        yield cluster


async def _deploy(client: GatewayClient, origins: Mapping[str, Path]) -> None:
    for model in MODELS:
        source = str(origins[model.name].absolute())
        async with aclosing(client.deploy(model.name, source=source, numerics=model.numerics)) as events:
            async for _ in events:
                pass
