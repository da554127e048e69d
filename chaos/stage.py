"""The cluster that all this happens to: two nodes, and models at numerics levels at which equality is exact."""

import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import logging

from chaos.adapter import write_adapter
from chaos.redis import Valkey
from cli.cluster import ClusterOptions, LocalCluster
from demo.models import DEMO_MODEL, write_tiny
from mesh.checkpoint.convert import import_directory
from mesh.checkpoint.layout import Manifest
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
    """A model of the run: its name, which demo.models kind it is (empty: the trained one), its level (None: its
    base's), and of an adapter the model that it adapts."""

    name: str
    kind: str
    numerics: NumericsLevel | None
    base: str = ""


MODELS = (
    ServedModel("trained", "", NumericsLevel.PATH_INVARIANT),
    ServedModel("batched", "llama", NumericsLevel.BATCH_INVARIANT),
    ServedModel("opaque", "lfm2", NumericsLevel.PATH_INVARIANT),
    ServedModel("adapted", "", None, base="batched"),
)


@dataclass(frozen=True, slots=True)
class Library:
    """What the models are made of: Hugging Face directories, and the checkpoints that were imported from them."""

    sources: Mapping[str, Path]
    digests: Mapping[str, str]
    directory: Path  # of the checkpoints

    def put(self, store_dir: Path) -> None:
        """Gives a store that starts later all of them."""
        shutil.copytree(self.directory, store_dir)


def library(directory: Path) -> Library:
    """Made below `directory`, in this process: a store's own import takes seconds to start."""
    quieten: Any = logging
    quieten.disable_progress_bar()
    quieten.set_verbosity_error()
    kept = directory / "checkpoints"
    sources: dict[str, Path] = {}
    manifests: dict[str, Manifest] = {}
    for model in MODELS:
        sources[model.name] = source = _source(model, directory / model.name, sources)
        base = manifests.get(model.base)
        manifests[model.name] = import_directory(source, kept, on_progress=lambda _: None, base=base)
    return Library(sources, {name: manifest.digest for name, manifest in manifests.items()}, kept)


def _source(model: ServedModel, directory: Path, made: Mapping[str, Path]) -> Path:
    if model.base:
        return write_adapter(made[model.base], directory)
    return write_tiny(model.kind, directory) if model.kind else DEMO_MODEL


@asynccontextmanager
async def stormy(directory: Path, workers: int, shelf: Library) -> AsyncIterator[tuple[LocalCluster, Valkey]]:
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
        shelf.put(options.store_dir("store-1"))  # the other one fetches from it
        async with LocalCluster(options) as cluster, cluster.client() as client:
            await _deploy(client, shelf)
            yield cluster, valkey


@asynccontextmanager
async def quiet(directory: Path, shelf: Library) -> AsyncIterator[LocalCluster]:
    """Two workers and one of each other process, and nothing happens to them."""
    options = ClusterOptions(directory, workers=2, settings=SETTINGS)
    shelf.put(options.store_dir("store-1"))
    async with LocalCluster(options) as cluster, cluster.client() as client:
        await _deploy(client, shelf)
        yield cluster


async def _deploy(client: GatewayClient, shelf: Library) -> None:
    for model in MODELS:
        digest = shelf.digests[model.name]
        async with aclosing(client.deploy(model.name, checkpoint=digest, numerics=model.numerics)) as events:
            async for _ in events:
                pass
