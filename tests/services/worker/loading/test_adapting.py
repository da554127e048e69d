"""An adapter comes from a store as a checkpoint does, and is of its own once it is there."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import torch
from transformers import PreTrainedModel

from mesh.checkpoint import layout
from mesh.checkpoint.convert import import_directory
from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.errors import MeshError, Unreachable, Unsuitable
from services.worker.loading.adapting import AdapterLoader
from services.worker.loading.host import Host
from services.worker.loading.loader import Order
from services.worker.settings import Transport
from tests.mesh.checkpoint.adapters import save_adapter
from tests.mesh.checkpoint.samples import Spec, make, save
from tests.services.worker.loading.checkpoints import Checkpoint
from tests.services.worker.loading.fake_store import Behaviour, FakeStore, serving
from tests.services.worker.loading.listener import Listener
from tests.services.worker.loading.test_devices import descriptors, maps


@dataclass
class Scene:
    """A store with an adapter, a loader onto the host, and the base."""

    store: FakeStore
    loader: AdapterLoader
    order: Order
    base: PreTrainedModel

    async def freed(self) -> None:
        """Waits until the store has heard that nobody needs its memory; fails if this process still has any of it."""
        assert not maps()
        async with asyncio.timeout(60):
            while self.store.held:
                await self.store.none_held.wait()
        assert not descriptors()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Of the sample llama."""
    root = tmp_path_factory.mktemp("adapting")
    base = import_directory(save(Spec("llama"), root / "llama"), root / "store", on_progress=lambda _: None)
    source = save_adapter(Spec("llama"), root / "adapter", r=1)
    manifest = import_directory(source, root / "store", on_progress=lambda _: None, base=base)
    home = root / "store" / manifest.digest
    files = {file.path: (home / "files" / file.path).read_bytes() for file in manifest.files}
    return Checkpoint(manifest, tuple((home / part.file).read_bytes() for part in manifest.parts), files)


@pytest.fixture
async def scene(adapter: Checkpoint) -> AsyncIterator[Scene]:
    """Ready to load."""
    channels = Channels()
    async with serving(adapter) as (store, address):
        stores = StoreClient(channels)
        loader = AdapterLoader(stores, Host(stores, Transport.AUTO))
        order = Order("a", adapter.digest, address, base=adapter.manifest.base or "")
        yield Scene(store, loader, order, make(Spec("llama")))
        await channels.close()


async def test_a_loaded_adapter_holds_nothing_of_the_store_and_has_every_matrix(scene: Scene) -> None:
    listener = Listener()
    loaded = await scene.loader.load(scene.order, scene.base, listener)
    await scene.freed()
    manifest = scene.store.checkpoint.manifest
    assert listener.manifests == [manifest]
    assert (loaded.adapter.name, loaded.adapter.digest) == (scene.order.replica, manifest.digest)
    pairs = [change.low_rank for change in loaded.adapter.changes.values() if change.low_rank]
    assert 2 * len(pairs) == len(manifest.tensors)
    assert sum(change.bytes for change in loaded.adapter.changes.values()) <= layout.total_bytes(manifest)
    assert all(torch.isfinite(pair.down).all() and pair.down.any() for pair in pairs)


@pytest.mark.parametrize("at", [-1, 0])
async def test_cancelling_frees_everything(scene: Scene, at: int) -> None:
    scene.store.does = does = Behaviour(batches=[[index] for index in range(2)], stop_at=at)
    loading = asyncio.create_task(scene.loader.load(scene.order, scene.base, Listener()))
    await does.stops(loading)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    await scene.freed()


async def test_a_store_that_dies_on_the_way_frees_everything(scene: Scene) -> None:
    scene.store.does = Behaviour(batches=[[0], [1]], fail_at=1)
    with pytest.raises(Unreachable):
        await scene.loader.load(scene.order, scene.base, Listener())
    await scene.freed()


async def test_an_adapter_of_another_base_is_refused_before_a_byte_has_come(scene: Scene) -> None:
    with pytest.raises(Unsuitable, match="no adapter of"):
        await scene.loader.load(replace(scene.order, base="ab" * 32), scene.base, Listener())
    with pytest.raises(MeshError) as refused:
        await scene.loader.load(scene.order, make(Spec("gpt2")), Listener())
    assert refused.value.reason == "UNSUPPORTED_ADAPTER"
    await scene.freed()
