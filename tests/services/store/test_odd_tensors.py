"""Quantized weights and adapters all the way: shards, import, disk, the store's memory, and a worker's views of it."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mesh.checkpoint.convert import import_directory
from mesh.checkpoint.layout import total_bytes
from mesh.checkpoint.views import tensor_views
from mesh.errors import InvalidRequest, NotFound
from mesh.facts import CheckpointSummary, Tier
from services.worker.loading.host import Host
from services.worker.settings import Transport
from tests.mesh.checkpoint import quantized
from tests.mesh.checkpoint.adapters import save_adapter
from tests.mesh.checkpoint.quantized import assert_same
from tests.mesh.checkpoint.samples import Spec, save
from tests.mesh.checkpoint.test_convert import ignore
from tests.services.store.inside import inside
from tests.services.store.serving import Serving, names_in

Tensors = Callable[[], dict[str, torch.Tensor]]


async def imported(store: Serving, source: Path, base: str = "") -> CheckpointSummary:
    """The checkpoint that it becomes."""
    async with aclosing(store.client.import_checkpoint(store.address, str(source), base)) as events:
        async for event in events:
            if isinstance(event, CheckpointSummary):
                return event
    raise AssertionError("no checkpoint came")


@asynccontextmanager
async def views(store: Serving, digest: str, transport: Transport) -> AsyncIterator[Mapping[str, torch.Tensor]]:
    """What a worker's host device makes of a checkpoint, all of it there."""
    stat = await store.client.stat(store.address, digest)
    async with Host(store.client, transport).load(store.address, stat, lambda _: None) as weights:
        await weights.complete()
        yield tensor_views(stat.manifest, weights.parts)


@pytest.mark.parametrize(
    "tensors",
    [quantized.every_dtype, quantized.gptq, lambda: quantized.experts(600)],
    ids=["dtypes", "gptq", "1200 experts"],
)
async def test_quantized_weights_reach_a_worker_to_the_bit(store: Serving, tmp_path: Path, tensors: Tensors) -> None:
    summary = await imported(store, quantized.save(tmp_path / "source", tensors(), shards=2))
    assert summary.kv_bytes_per_token == 0
    for transport in (Transport.SHARED, Transport.STREAM):
        async with views(store, summary.digest, transport) as found:
            assert_same(found, tensors())


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base."""
    return save(Spec("llama"), tmp_path_factory.mktemp("llama"))


async def test_an_adapter_reaches_a_worker_to_the_bit_and_is_known_by_its_base(
    store: Serving, llama: Path, tmp_path: Path
) -> None:
    base = await imported(store, llama)
    source = save_adapter(Spec("llama"), tmp_path / "adapter", modules_to_save=["lm_head"])
    summary = await imported(store, source, base.digest)
    assert (base.base, summary.base) == ("", base.digest)
    assert (await store.client.stat(store.address, summary.digest)).summary == summary
    for transport in (Transport.SHARED, Transport.STREAM):
        async with views(store, summary.digest, transport) as found:
            assert_same(found, load_file(source / "adapter_model.safetensors"))
    assert (await store.client.stat(store.address, base.digest)).dram_bytes == 0


async def test_loading_an_adapter_reads_its_own_bytes_and_no_others(llama: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    base = import_directory(llama, root, on_progress=ignore)
    adapter = import_directory(save_adapter(Spec("llama"), tmp_path / "adapter"), root, on_progress=ignore, base=base)
    async with inside(root) as store:
        async with store.loads.open(store.catalog.get(adapter.digest)) as opening:
            await opening.complete()
            assert opening.tier is Tier.DISK
        read = store.loads.tally
        assert read.disk_bytes == read.total_bytes == total_bytes(adapter) < total_bytes(base) / 10
        assert store.dram.get(base.digest) is None


async def test_an_adapter_without_its_base_is_refused_by_field(store: Serving, llama: Path, tmp_path: Path) -> None:
    source = save_adapter(Spec("llama"), tmp_path / "adapter")
    config = json.loads((source / "adapter_config.json").read_text())
    (source / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "birds/whimbrel-7b"}))
    with pytest.raises(InvalidRequest, match="is an adapter of birds/whimbrel-7b; import that") as refused:
        await imported(store, source)
    assert (refused.value.reason, refused.value.violations[0].field) == ("BASE_MISMATCH", "base")
    with pytest.raises(InvalidRequest, match="base: must be a digest"):
        await imported(store, source, "birds/whimbrel-7b")
    with pytest.raises(NotFound, match=f"checkpoint {'0' * 64} is in no store"):
        await imported(store, source, "0" * 64)
    base = await imported(store, llama)
    with pytest.raises(InvalidRequest, match="is no adapter but a model of its own"):
        await imported(store, llama, base.digest)
    assert names_in(store.settings.store_dir) == {base.digest}
