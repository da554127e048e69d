"""A PEFT directory becomes a checkpoint of its own: small, layer by layer, bound to its base by digest."""

import asyncio
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mesh.checkpoint import layout
from mesh.checkpoint.convert import import_directory
from mesh.checkpoint.errors import BaseMismatch, CheckpointError, ShardMismatch
from mesh.checkpoint.importer import import_in_child
from mesh.checkpoint.layout import Manifest, UnitKind
from mesh.checkpoint.verify import verify_checkpoint

from .adapters import save_adapter
from .quantized import assert_same
from .samples import Spec
from .test_convert import ignore, views_of

ADAPTER = UnitKind.ADAPTER
LAYERS = [("layers.0", ADAPTER, 0), ("layers.1", ADAPTER, 1)]


@pytest.fixture
def base(saved: Callable[[Spec], Path], root: Path) -> Manifest:
    """The llama, in the same store."""
    return import_directory(saved(Spec("llama")), root, on_progress=ignore)


def places(manifest: Manifest) -> list[tuple[str, UnitKind, int | None]]:
    """The units, and what they hold."""
    return [(unit.name, unit.kind, unit.layer) for unit in manifest.units]


@pytest.mark.parametrize(
    ("changes", "around"),
    [
        ({}, False),
        ({"rank_pattern": {"q_proj": 8}, "alpha_pattern": {"q_proj": 32}, "use_rslora": True}, False),
        ({"use_dora": True}, False),
        ({"lora_bias": True, "bias": "all"}, False),
        ({"modules_to_save": ["embed_tokens", "lm_head"]}, True),
        ({"target_modules": ["q_proj", "embed_tokens", "lm_head"], "save_embeddings": True}, True),
    ],
)
def test_an_adapter_comes_back_to_the_bit_layer_by_layer(
    base: Manifest, tmp_path: Path, root: Path, changes: dict[str, Any], around: bool
) -> None:
    source = save_adapter(Spec("llama"), tmp_path / "adapter", **changes)
    manifest = import_directory(source, root, on_progress=ignore, base=base)
    assert verify_checkpoint(root / manifest.digest) == manifest
    assert_same(views_of(root, manifest), load_file(source / "adapter_model.safetensors"))
    first, last = ("embedding", UnitKind.EMBEDDING, None), ("head", UnitKind.HEAD, None)
    assert places(manifest) == ([first, *LAYERS, last] if around else LAYERS)


def test_it_is_bound_to_its_base_and_described_by_it(base: Manifest, tmp_path: Path, root: Path) -> None:
    source = save_adapter(Spec("llama"), tmp_path / "adapter", use_dora=True)
    manifest = import_directory(source, root, on_progress=ignore, base=base)
    assert manifest.base == base.digest
    for field in ("architecture", "model_type", "transformers", "max_context"):
        assert getattr(manifest, field) == getattr(base, field)
    assert manifest.kv is None
    (config,) = manifest.files
    assert (config.path, config.hash) == ("adapter_config.json", manifest.config_digest)
    kept = json.loads((root / manifest.digest / "files" / "adapter_config.json").read_text())
    assert kept["use_dora"] is True
    assert layout.total_bytes(manifest) < layout.total_bytes(base) / 10
    other = import_directory(source, root, on_progress=ignore, base=_renamed(base))
    assert other.digest != manifest.digest
    assert [unit.hash for unit in other.units] == [unit.hash for unit in manifest.units]


def _renamed(base: Manifest) -> Manifest:
    """Another checkpoint of the same shapes."""
    renamed = dataclasses.replace(base, max_context=base.max_context + 1)
    return dataclasses.replace(renamed, digest=layout.digest_of(renamed))


def test_experts_of_a_layer_are_adapted_in_one_unit(saved: Callable[[Spec], Path], tmp_path: Path, root: Path) -> None:
    mixture = import_directory(saved(Spec("qwen3_moe")), root, on_progress=ignore)
    fused = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    source = save_adapter(Spec("qwen3_moe"), tmp_path / "adapter", target_parameters=fused)
    manifest = import_directory(source, root, on_progress=ignore, base=mixture)
    assert places(manifest) == LAYERS
    assert_same(views_of(root, manifest), load_file(source / "adapter_model.safetensors"))


async def test_the_importing_child_is_told_the_base(base: Manifest, tmp_path: Path, root: Path) -> None:
    source = save_adapter(Spec("llama"), tmp_path / "adapter")
    manifest = await import_in_child(str(source), root, ignore, root / base.digest / "manifest.json")
    assert await asyncio.to_thread(verify_checkpoint, root / manifest.digest) == manifest
    assert manifest.base == base.digest


@pytest.mark.parametrize(("family", "error"), [(None, BaseMismatch), ("gpt2", ShardMismatch)])
async def test_a_missing_or_wrong_base_is_an_error_of_its_kind(
    saved: Callable[[Spec], Path], tmp_path: Path, root: Path, family: str | None, error: type[CheckpointError]
) -> None:
    source = save_adapter(Spec("llama"), tmp_path / "adapter")
    path = None
    if family:
        wrong = import_directory(saved(Spec(family)), root, on_progress=ignore)
        path = root / wrong.digest / "manifest.json"
    with pytest.raises(error, match=str(source)):
        await import_in_child(str(source), root, ignore, path)
