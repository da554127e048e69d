"""What a store keeps and no engine runs: quantized weights and some adapters are imported, and Deploy says why not."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.errors import InvalidRequest, Unsuitable
from mesh.facts import CheckpointSummary
from tests.e2e.asking import deploy
from tests.e2e.conftest import Running
from tests.mesh.checkpoint import quantized
from tests.mesh.checkpoint.adapters import save_adapter
from tests.mesh.checkpoint.samples import Spec, save


async def imported(shared: Running, source: Path, base: str = "") -> CheckpointSummary:
    """Through the gateway."""
    async with aclosing(shared.client.import_checkpoint(str(source), base)) as events:
        async for event in events:
            if isinstance(event, CheckpointSummary):
                return event
    raise AssertionError("no checkpoint came")


async def test_quantized_weights_are_kept_and_not_deployed(shared: Running, tmp_path: Path) -> None:
    source = quantized.save(tmp_path, quantized.gptq())
    summary = await imported(shared, source)
    for spec in ({"source": str(source)}, {"checkpoint": summary.digest}):
        with pytest.raises(Unsuitable, match="its weights are quantized") as refused:
            await deploy(shared.client, "quantized", **spec)
        assert refused.value.reason == "UNSUPPORTED_ARCHITECTURE"
    assert "quantized" not in {model.name for model in await shared.client.list()}


async def test_an_adapter_that_cannot_be_applied_is_kept_beside_its_base_and_not_deployed(
    shared: Running, tmp_path: Path
) -> None:
    base = await imported(shared, await asyncio.to_thread(save, Spec("llama"), tmp_path / "llama"))
    source = await asyncio.to_thread(save_adapter, Spec("llama"), tmp_path / "adapter", trainable_token_indices=[1])
    with pytest.raises(InvalidRequest) as refused:
        await imported(shared, source)
    assert [violation.field for violation in refused.value.violations] == ["base"]
    adapter = await imported(shared, source, base.digest)
    assert adapter.base == base.digest
    with pytest.raises(Unsuitable) as unsuitable:
        await deploy(shared.client, "adapter", checkpoint=adapter.digest)
    assert unsuitable.value.reason == "UNSUPPORTED_ADAPTER"
