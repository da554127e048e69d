"""Ready before anybody asks: who deploys a model finds its code imported and its module built, and no load waits."""

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from mesh.checkpoint.layout import Manifest
from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.facts import CheckpointFacts, CheckpointSummary, Kind, Member, ModelEntry, StoreFacts, Tier
from mesh.state.catalogue import Catalogue
from mesh.state.connection import State
from mesh.state.leases import Membership
from services.worker.engine.batch import Limits
from services.worker.loading.ahead import Ahead, import_code
from services.worker.loading.host import Host
from services.worker.loading.loader import CONFIG, Loader, Order
from services.worker.loading.quiet import Quiet
from services.worker.loading.skeletons import Skeletons, preimport
from services.worker.settings import Transport
from tests.cluster import START_S, process
from tests.services.worker.loading.checkpoints import Checkpoint, tiny_llama
from tests.services.worker.loading.fake_store import Behaviour, FakeStore, serving
from tests.services.worker.loading.listener import Listener

WAIT_S = 60.0


class WatchedSkeletons(Skeletons):
    """Tells when one is being built, and waits then for `go_on`; `built` counts them."""

    def __init__(self, capacity: int, directory: Path) -> None:
        super().__init__(capacity, directory)
        self.built = 0
        self.building, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def build(self, manifest: Manifest, config_json: bytes) -> PreTrainedModel:
        """As ever."""
        self.building.set()
        self.go_on.wait()
        self.built += 1
        return super().build(manifest, config_json)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A tiny model."""
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@asynccontextmanager
async def following(state: State, skeletons: Skeletons, llama: Checkpoint, quiet: Quiet) -> AsyncIterator[FakeStore]:
    """The one who makes ready, beside a store that has the checkpoint."""
    async with serving(llama) as (store, address):
        channels = Channels()
        async with holding(state, llama, address), asyncio.TaskGroup() as group:
            ahead = Ahead(state, "node", StoreClient(channels), skeletons, quiet)
            task = group.create_task(ahead.run())
            try:
                yield store
            finally:
                skeletons.go_on.set() if isinstance(skeletons, WatchedSkeletons) else None
                task.cancel()
        await channels.close()


def holding(state: State, llama: Checkpoint, address: str) -> Membership:
    """The store's facts: it has the checkpoint on its disk."""
    facts = StoreFacts(0, 0, 0, (CheckpointFacts(llama.digest, 1, Tier.DISK),))
    return Membership(state, Member(Kind.STORE, "s", "node", address, store=facts), 60.0)


def entry(llama: Checkpoint, name: str = "curlew", base: str = "") -> ModelEntry:
    """A deployment of it."""
    summary = CheckpointSummary(llama.digest, 1, "LlamaForCausalLM", "float32", 512, 1, 1, 1, base)
    return ModelEntry(name, summary, "/models", None, 1.0, 1.0)


async def until_set(event: threading.Event) -> None:
    """Waits for what another thread says."""
    assert await asyncio.to_thread(event.wait, WAIT_S)


async def test_a_deployed_model_has_its_module_ready_for_whoever_loads_it(
    state: State, llama: Checkpoint, tmp_path: Path
) -> None:
    skeletons = WatchedSkeletons(2, tmp_path)
    async with following(state, skeletons, llama, Quiet()) as store:
        await Catalogue(state).add(entry(llama))
        await until_set(skeletons.building)
        manifest = store.checkpoint.manifest
        obtained = await asyncio.to_thread(skeletons.obtain, manifest, llama.files[CONFIG])
        assert skeletons.built == 1  # who asks while it is being built gets that one
        assert next(obtained.parameters()).is_meta
        assert skeletons.take(manifest) is None


async def test_a_deployed_adapter_has_its_bases_module_ready(state: State, llama: Checkpoint, tmp_path: Path) -> None:
    skeletons = WatchedSkeletons(2, tmp_path)
    async with following(state, skeletons, llama, Quiet()) as store:
        shy = entry(llama, "shy", base=llama.digest)
        await Catalogue(state).add(replace(shy, checkpoint=replace(shy.checkpoint, digest="f" * 64)))
        await until_set(skeletons.building)
        await asyncio.to_thread(skeletons.obtain, store.checkpoint.manifest, llama.files[CONFIG])
        assert skeletons.built == 1


async def test_nothing_is_begun_while_a_load_is_under_way(state: State, llama: Checkpoint, tmp_path: Path) -> None:
    skeletons, quiet = WatchedSkeletons(2, tmp_path), Quiet()
    async with following(state, skeletons, llama, quiet) as store:
        with quiet.broken():
            await Catalogue(state).add(entry(llama))
            with quiet.broken():
                obtained = await asyncio.to_thread(skeletons.obtain, store.checkpoint.manifest, llama.files[CONFIG])
            skeletons.building.clear()
            assert not await asyncio.to_thread(skeletons.building.wait, 0.5)
        await until_set(skeletons.building)  # nothing else lies ready: it was only put off
        assert next(obtained.parameters()).is_meta


async def test_it_is_not_quiet_until_the_replica_is_there(llama: Checkpoint, tmp_path: Path) -> None:
    channels = Channels()
    async with serving(llama) as (store, address), AsyncExitStack() as held:
        stores = StoreClient(channels)
        loader = Loader(stores, Host(stores, Transport.AUTO), Skeletons(1, tmp_path), 1 << 20, Limits())
        await loader.quiet.come()
        store.does = does = Behaviour(batches=[[i] for i in range(len(llama.manifest.units))], stop_at=1)
        load = loader.load(Order("m", llama.digest, address), Listener())
        loading = asyncio.ensure_future(held.enter_async_context(load))
        await does.stops(loading)
        quiet = asyncio.ensure_future(loader.quiet.come())
        await asyncio.sleep(0)
        assert not quiet.done()
        does.go_on.set()
        (await loading).replica.unload()
        await quiet
    await channels.close()


def test_a_class_that_transformers_has_is_imported_and_another_is_nothing() -> None:
    import_code("SeedOssForCausalLM")
    assert "transformers.models.seed_oss.modeling_seed_oss" in sys.modules
    import_code("NoSuchForCausalLM")


def test_the_garbage_collector_does_not_look_through_what_was_imported_before_serving() -> None:
    gc.unfreeze()
    try:
        preimport(["llama", "no_such_type"])
        assert gc.get_freeze_count() > 100_000  # torch and transformers
    finally:
        gc.unfreeze()


async def test_what_cannot_be_made_ready_is_passed_over(state: State, llama: Checkpoint, tmp_path: Path) -> None:
    skeletons = WatchedSkeletons(2, tmp_path)
    async with following(state, skeletons, llama, Quiet()):
        catalogue = Catalogue(state)
        nowhere = replace(entry(llama).checkpoint, digest="f" * 64, architecture="NoSuchForCausalLM")
        await catalogue.add(replace(entry(llama, "nowhere"), checkpoint=nowhere))
        await catalogue.add(entry(llama, "adapter", base="e" * 64))
        await catalogue.add(entry(llama))
        await until_set(skeletons.building)


async def test_what_is_only_a_hint_drives_out_nothing_and_is_the_first_to_go(llama: Checkpoint, tmp_path: Path) -> None:
    skeletons = WatchedSkeletons(1, tmp_path)
    config = llama.files[CONFIG]
    unloaded = skeletons.build(llama.manifest, config)
    skeletons.give_back(llama.manifest, unloaded)
    other = replace(llama.manifest, config_digest="1" * 64)
    skeletons.prepare(other, config)
    assert skeletons.take(other) is None
    assert skeletons.take(llama.manifest) is unloaded
    skeletons.prepare(other, config)
    skeletons.give_back(llama.manifest, unloaded)
    assert skeletons.take(other) is None
    assert skeletons.take(llama.manifest) is unloaded


async def test_a_worker_makes_ready_what_is_deployed_though_nobody_asks_for_it(
    state: State, redis_url: str, cluster: str, llama: Checkpoint
) -> None:
    worker = process(Kind.WORKER, redis_url=redis_url, cluster=cluster, port=0, preimport="[]", kv_bytes=1 << 20)
    async with serving(llama) as (store, address), holding(state, llama, address), worker:
        await Catalogue(state).add(entry(llama))
        async with asyncio.timeout(START_S):
            await store.file_read.wait()
