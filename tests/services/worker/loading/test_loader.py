"""A load from the manifest to the replica: what runs side by side, and that cancelling it anywhere frees everything."""

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from demo.models import write_tiny
from mesh.checkpoint.layout import Manifest
from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.clients.worker import Loaded
from mesh.errors import MeshError, Unreachable
from mesh.facts import RunnerKind
from mesh.requests import LoadProgress
from services.worker.engine.batch import Limits
from services.worker.engine.engine import Engine
from services.worker.loading.adapting import AdapterLoader
from services.worker.loading.host import Host
from services.worker.loading.loader import Loader, Order
from services.worker.loading.skeletons import Skeletons
from services.worker.replicas import Replicas
from services.worker.settings import Transport
from tests.services.worker.loading.checkpoints import Checkpoint, imported, tiny_llama
from tests.services.worker.loading.fake_store import Behaviour, FakeStore, serving
from tests.services.worker.loading.listener import Listener
from tests.services.worker.loading.test_devices import WAYS, descriptors, maps

KV_BYTES = 1 << 20


class HeldSkeletons(Skeletons):
    """Its modules can be held where they are pointed at their bytes. `alive` are those that somebody still has."""

    def __init__(self, directory: Path) -> None:
        super().__init__(4, directory)
        self.joining, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.alive: weakref.WeakSet[PreTrainedModel] = weakref.WeakSet()

    def build(self, manifest: Manifest, config_json: bytes) -> PreTrainedModel:
        """A module that tells when it is asked for its parts, and waits then."""
        module = super().build(manifest, config_json)
        modules = type(module).named_modules

        def named_modules(*args: Any, **kwargs: Any) -> Any:
            self.joining.set()
            self.go_on.wait()
            return modules(module, *args, **kwargs)

        module.named_modules = named_modules  # type: ignore[method-assign]
        self.alive.add(module)
        return module


@dataclass
class Scene:
    """A store with a real model, and a loader onto the host."""

    store: FakeStore
    skeletons: HeldSkeletons
    loader: Loader
    order: Order

    async def hold(self) -> None:
        """Loads, and keeps the replica until cancelled."""
        async with self.loader.load(self.order, Listener()):
            await asyncio.Event().wait()

    async def freed(self) -> None:
        """Waits until the store has heard that nobody needs its memory; fails if this process still has any of it."""
        assert not maps()
        async with asyncio.timeout(60):
            while self.store.held:
                await self.store.none_held.wait()
        assert not descriptors()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A tiny model."""
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
async def scene(llama: Checkpoint, tmp_path: Path) -> AsyncIterator[Scene]:
    """Ready to load."""
    channels = Channels()
    async with serving(llama) as (store, address):
        stores, skeletons = StoreClient(channels), HeldSkeletons(tmp_path)
        loader = Loader(stores, Host(stores, Transport.AUTO), skeletons, KV_BYTES, Limits())
        yield Scene(store, skeletons, loader, Order("m", llama.digest, address))
        await channels.close()


def units(scene: Scene) -> int:
    """How many there are."""
    return len(scene.store.checkpoint.manifest.units)


async def test_the_skeleton_points_at_its_bytes_before_they_have_come(scene: Scene) -> None:
    scene.store.does = does = Behaviour(batches=[[index] for index in range(units(scene))], stop_at=1)
    loading = asyncio.create_task(scene.hold())
    await does.stops(loading)
    await asyncio.to_thread(scene.skeletons.joining.wait, 30)
    assert scene.skeletons.joining.is_set()
    assert not does.go_on.is_set()
    loading.cancel()
    await asyncio.wait([loading])
    await scene.freed()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", [-1, 0, 2])
async def test_cancelling_while_bytes_come_frees_everything(scene: Scene, way: dict[str, Any], at: int) -> None:
    if way and at < 0:
        pytest.skip("only Open has a moment before its memory is there")
    scene.store.does = does = Behaviour(batches=[[index] for index in range(units(scene))], stop_at=at, **way)
    loading = asyncio.create_task(scene.hold())
    await does.stops(loading)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    await scene.freed()


async def test_cancelling_while_the_skeleton_is_joined_waits_for_that_and_frees_everything(scene: Scene) -> None:
    scene.skeletons.go_on.clear()
    loading = asyncio.create_task(scene.hold())
    await asyncio.to_thread(scene.skeletons.joining.wait, 30)
    loading.cancel()
    done, _ = await asyncio.wait([loading], timeout=0.2)
    assert not done
    scene.skeletons.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await loading
    await scene.freed()


async def test_a_store_that_dies_on_the_way_frees_everything_and_keeps_the_skeleton(scene: Scene) -> None:
    scene.store.does = does = Behaviour(batches=[[index] for index in range(units(scene))], stop_at=2, fail_at=3)
    loading = asyncio.create_task(scene.hold())
    await asyncio.to_thread(scene.skeletons.joining.wait, 30)
    does.go_on.set()
    with pytest.raises(Unreachable):
        await loading
    await scene.freed()
    scene.store.does = Behaviour()
    async with scene.loader.load(scene.order, Listener()) as loaded:
        loaded.replica.unload()
    assert len(scene.skeletons.alive) == 1


async def test_the_last_listener_who_leaves_cancels_the_load_and_the_next_one_loads_anew(scene: Scene) -> None:
    engine = Engine(lambda steps: None)
    engine.start()
    adapters = AdapterLoader(scene.loader._stores, scene.loader._device)
    replicas = Replicas(engine, scene.loader, adapters, memory_bytes=1 << 30, kv_bytes=KV_BYTES)
    scene.store.does = does = Behaviour(batches=[[index] for index in range(units(scene))], stop_at=1)
    events = replicas.load(scene.order)
    assert isinstance(await anext(events), LoadProgress)
    async with asyncio.timeout(60):
        await does.stopped.wait()
    (facts,) = replicas.facts()
    assert facts.bytes == sum(part.bytes for part in scene.store.checkpoint.manifest.parts) + KV_BYTES
    await events.aclose()
    scene.store.does = Behaviour()
    assert isinstance([event async for event in replicas.load(scene.order)][-1], Loaded)
    await replicas.close()
    assert not replicas.facts()
    await asyncio.to_thread(engine.close)
    await scene.freed()


async def test_a_new_version_with_the_same_config_takes_over_the_skeleton_and_one_with_another_does_not(
    scene: Scene,
) -> None:
    manifest = scene.store.checkpoint.manifest
    async with scene.loader.load(scene.order, Listener()) as loaded:
        loaded.replica.unload()
    assert scene.skeletons.take(replace(manifest, config_digest="1" * 64)) is None
    assert scene.skeletons.take(replace(manifest, dtype="float64")) is None
    assert scene.skeletons.take(replace(manifest, digest="1" * 64)) is next(iter(scene.skeletons.alive))


@pytest.fixture
async def bloom(tmp_path: Path) -> AsyncIterator[Scene]:
    """Ready to load what cannot be packed."""
    channels = Channels()
    checkpoint = imported(write_tiny("bloom", tmp_path / "source"), tmp_path)
    async with serving(checkpoint) as (store, address):
        stores, skeletons = StoreClient(channels), HeldSkeletons(tmp_path)
        loader = Loader(stores, Host(stores, Transport.AUTO), skeletons, KV_BYTES, Limits())
        yield Scene(store, skeletons, loader, Order("m", checkpoint.digest, address))
        await channels.close()


async def test_a_model_that_cannot_be_packed_is_tried_once_its_bytes_have_come(bloom: Scene) -> None:
    assert bloom.store.checkpoint.manifest.runner is RunnerKind.OPAQUE
    tried = []
    for _ in range(2):
        async with bloom.loader.load(bloom.order, Listener()) as loaded:
            assert loaded.replica.stats().runner is RunnerKind.OPAQUE
            tried.append(dict(bloom.loader._proofs))
            loaded.replica.unload()
        await bloom.freed()
    assert tried[0] == tried[1]
    assert len(bloom.skeletons.alive) == 1


async def test_a_model_that_contradicts_itself_is_refused_and_frees_everything(bloom: Scene) -> None:
    class Forgetful(HeldSkeletons):
        def build(self, manifest: Manifest, config_json: bytes) -> PreTrainedModel:
            """A module that forgets what came before."""
            module = super().build(manifest, config_json)
            forward = module.forward
            module.forward = lambda past_key_values=None, **rest: forward(**rest)  # type: ignore[method-assign]
            return module

    skeletons = Forgetful(bloom.skeletons._scratch_dir)
    loader = Loader(bloom.loader._stores, bloom.loader._device, skeletons, KV_BYTES, Limits())
    with pytest.raises(MeshError, match="cannot run here") as refused:
        async with loader.load(bloom.order, Listener()):
            pass
    assert refused.value.reason == "UNSUPPORTED_ARCHITECTURE"
    await bloom.freed()


async def test_a_model_that_cannot_run_here_is_refused_and_frees_everything(scene: Scene) -> None:
    loader = Loader(scene.loader._stores, scene.loader._device, scene.skeletons, kv_bytes=1, limits=Limits())
    with pytest.raises(MeshError) as refused:
        async with loader.load(scene.order, Listener()):
            pass
    assert refused.value.reason == "UNSUPPORTED_ARCHITECTURE"
    await scene.freed()
