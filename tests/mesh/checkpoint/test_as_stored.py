"""Quantized weights come back as they were stored, to the bit, in units that can be loaded one by one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model

from mesh.checkpoint.convert import import_directory
from mesh.checkpoint.errors import ShardMismatch, UnsupportedModel
from mesh.checkpoint.layout import Manifest, UnitKind, is_digest, kv_bytes_per_token
from mesh.checkpoint.records import AS_STORED
from mesh.checkpoint.verify import verify_checkpoint

from . import quantized
from .quantized import assert_same
from .samples import Spec
from .test_convert import ignore, views_of

Tensors = Callable[[], dict[str, torch.Tensor]]


def imported(source: Path, root: Path) -> Manifest:
    """The checkpoint of a directory, verified."""
    manifest = import_directory(source, root, on_progress=ignore)
    assert verify_checkpoint(root / manifest.digest) == manifest
    return manifest


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    "tensors", [quantized.every_dtype, quantized.gptq, lambda: quantized.experts(8)], ids=["dtypes", "gptq", "experts"]
)
def test_every_tensor_comes_back_to_the_bit(tensors: Tensors, shards: int, tmp_path: Path, root: Path) -> None:
    source = quantized.save(tmp_path / "source", tensors(), shards=shards)
    manifest = imported(source, root)
    assert_same(quantized.saved(source), tensors())
    assert_same(views_of(root, manifest), tensors())


def test_how_they_were_sharded_does_not_matter(tmp_path: Path, root: Path) -> None:
    digests = {
        imported(quantized.save(tmp_path / str(shards), quantized.gptq(), shards=shards), root).digest
        for shards in (1, 2, 5)
    }
    assert len(digests) == 1


def test_units_lie_in_forward_order(tmp_path: Path, root: Path) -> None:
    manifest = imported(quantized.save(tmp_path / "source", quantized.gptq(), shards=2), root)
    assert [unit.name for unit in manifest.units] == ["embedding", "layers.0", "layers.1", "head"]
    assert (manifest.dtype, manifest.architecture, manifest.model_type) == ("float16", "LlamaForCausalLM", "llama")
    assert (manifest.max_context, manifest.transformers) == (4096, AS_STORED)
    assert manifest.kv is None  # which is what keeps it from being deployed
    assert kv_bytes_per_token(manifest) == 0


def test_a_thousand_experts_are_units_of_their_own(tmp_path: Path, root: Path) -> None:
    tensors = quantized.experts(600)
    manifest = imported(quantized.save(tmp_path / "source", tensors, shards=4), root)
    units = [unit for unit in manifest.units if unit.kind is UnitKind.EXPERT]
    assert [(unit.layer, unit.expert) for unit in units] == [(layer, n) for layer in (1, 2) for n in range(600)]
    assert {unit.bytes for unit in units} == {
        5 * 64 + 4
    }  # six tensors, each on a cache line of its own; the last is a scale
    assert_same(views_of(root, manifest), tensors)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "newer_than_transformers", "architectures": ["NewerForCausalLM"]},
        {"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}, "architectures": ["Evil"], "model_type": "evil"},
        {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
        {"compression_config": {"format": "int-quantized"}, "quantization_config": None},
    ],
)
def test_no_class_is_needed_and_no_code_is_run(tmp_path: Path, root: Path, changes: dict[str, Any]) -> None:
    source = quantized.save(tmp_path / "source", quantized.gptq(), **changes)
    (source / "modeling_evil.py").write_text("raise SystemExit('it ran')")
    manifest = imported(source, root)
    assert manifest.model_type == changes.get("model_type", "llama")
    assert "modeling_evil.py" not in {file.path for file in manifest.files}


@pytest.mark.parametrize(
    ("changes", "architecture", "max_context"),
    [
        ({"architectures": None}, "llama", 4096),
        ({"architectures": []}, "llama", 4096),
        ({"architectures": ["\ud800"]}, "llama", 4096),
        ({"architectures": "LlamaForCausalLM"}, "llama", 4096),
        ({"architectures": [["x"]]}, "llama", 4096),
        ({"max_position_embeddings": None, "n_positions": 7}, "LlamaForCausalLM", 7),
        ({"max_position_embeddings": None}, "LlamaForCausalLM", 2048),
        ({"max_position_embeddings": True}, "LlamaForCausalLM", 2048),
        ({"max_position_embeddings": 2**70}, "LlamaForCausalLM", 2**31 - 1),
        ({"text_config": {"max_position_embeddings": 99}}, "LlamaForCausalLM", 99),
    ],
)
def test_the_manifest_says_what_the_config_says(
    tmp_path: Path, root: Path, changes: dict[str, Any], architecture: str, max_context: int
) -> None:
    manifest = imported(quantized.save(tmp_path / "source", quantized.gptq(), **changes), root)
    assert (manifest.architecture, manifest.max_context) == (architecture, max_context)


@pytest.mark.parametrize("tensors", [{}, {"empty": torch.zeros(0, 4)}], ids=["none", "empty"])
def test_shards_without_a_byte_are_refused(tmp_path: Path, root: Path, tensors: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ShardMismatch, match="has no weights"):
        imported(quantized.save(tmp_path / "source", tensors), root)


@pytest.mark.slow
def test_a_manifest_that_could_not_be_read_is_not_published(tmp_path: Path, root: Path) -> None:
    one = torch.zeros((1,) * 64, dtype=torch.uint8)
    tensors = {f"{index:06}{'x' * 1018}": one.clone() for index in range(52_000)}
    with pytest.raises(UnsupportedModel, match="has 52000 tensors, which need a manifest of"):
        imported(quantized.save(tmp_path / "source", tensors), root)
    assert not [path for path in root.iterdir() if is_digest(path.name)]


def test_tied_tensors_are_stored_once_under_the_name_that_the_file_has(tmp_path: Path, root: Path) -> None:
    model = torch.nn.ModuleDict(
        {"embed_tokens": torch.nn.Embedding(8, 4), "lm_head": torch.nn.Linear(4, 8, bias=False)}
    )
    model["lm_head"].weight = model["embed_tokens"].weight
    source = quantized.save(tmp_path / "source", {"x": torch.zeros(1)})
    save_model(model, str(source / "model.safetensors"))
    manifest = imported(source, root)
    assert len(manifest.tensors) == 1
    assert_same(views_of(root, manifest), quantized.saved(source))


def test_what_was_not_contiguous_comes_back_as_its_tool_wrote_it(tmp_path: Path, root: Path) -> None:
    transposed = quantized.random_bits((6, 10), torch.int8).t()
    source = quantized.save(tmp_path / "source", {"x": torch.zeros(1)})
    save_file({"model.layers.0.weight": transposed.contiguous()}, source / "model.safetensors")
    assert_same(views_of(root, imported(source, root)), {"model.layers.0.weight": transposed})


def test_a_model_of_transposed_parameters_is_saved_and_comes_back(
    saved: Callable[[Spec], Path], tmp_path: Path, root: Path
) -> None:
    """Through transformers' own loader: what is not quantized becomes a state that runs."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(saved(Spec("llama")))
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight = torch.nn.Parameter(module.weight.t().contiguous().t())
            assert not module.weight.is_contiguous()
    model.save_pretrained(tmp_path / "source")
    assert_same(views_of(root, imported(tmp_path / "source", root)), model.state_dict())
