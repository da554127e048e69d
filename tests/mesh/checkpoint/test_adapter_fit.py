"""What PEFT saves of an adapter fits the model that it was trained on, and no other."""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from mesh.checkpoint.adapter_fit import check_base
from mesh.checkpoint.convert import import_directory
from mesh.checkpoint.errors import BaseMismatch, NotACheckpoint, PickleRefused, ShardMismatch, UnsupportedModel
from mesh.checkpoint.layout import Manifest
from mesh.checkpoint.origins.local import LocalOrigin
from mesh.checkpoint.records import AS_STORED
from mesh.checkpoint.source import Form, Source, inspect

from .adapters import save_adapter
from .samples import Spec

PREFIX = "base_model.model.model.layers.0.self_attn.q_proj"
Bases = Callable[[Spec], Manifest]


@pytest.fixture(scope="module")
def bases(saved: Callable[[Spec], Path], tmp_path_factory: pytest.TempPathFactory) -> Bases:
    """The manifest of an imported model, made at its first use."""
    made: dict[Spec, Manifest] = {}

    def get(spec: Spec) -> Manifest:
        if spec not in made:
            root = tmp_path_factory.mktemp("bases")
            made[spec] = import_directory(saved(spec), root, on_progress=lambda _: None)
        return made[spec]

    return get


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the llama; not to be changed."""
    return save_adapter(Spec("llama"), tmp_path_factory.mktemp("adapter"))


def look(directory: Path) -> Source:
    """What inspect() makes of a directory."""
    with closing(LocalOrigin(directory)) as origin:
        return inspect(origin)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("llama", {"rank_pattern": {"q_proj": 8, r".*\.1\.mlp\.down_proj": 2}, "use_rslora": True}),
        ("llama", {"target_modules": "all-linear", "lora_bias": True}),
        ("llama", {"target_modules": ["q_proj", "embed_tokens", "lm_head"], "save_embeddings": True}),
        ("llama", {"modules_to_save": ["embed_tokens", "lm_head"]}),
        ("llama", {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True}),
        ("llama", {"trainable_token_indices": [1, 5, 7]}),
        ("qwen2", {"bias": "all"}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj", "wte"]}),
        ("opt", {"target_modules": ["project_in", "fc1"]}),
        ("qwen3_moe", {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}),
        ("mixtral", {"target_parameters": ["mlp.experts.gate_up_proj"], "target_modules": ["q_proj"]}),
    ],
)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_what_peft_saves_fits(bases: Bases, tmp_path: Path, family: str, changes: dict[str, Any], tied: bool) -> None:
    source = look(save_adapter(Spec(family, tied=tied), tmp_path, **changes))
    assert source.form is Form.ADAPTER
    check_base(source, bases(Spec(family, tied=tied)))


def test_another_model_is_not_its_base(bases: Bases, adapter: Path) -> None:
    with pytest.raises(ShardMismatch, match=r"does not fit its base, GPT2LMHeadModel .* no 'model\.layers\.0\.mlp"):
        check_base(look(adapter), bases(Spec("gpt2")))
    wide = replace(bases(Spec("llama")), tensors=_widened(bases(Spec("llama"))))
    with pytest.raises(ShardMismatch, match=r"no 'model\.layers\.0\.self_attn\.q_proj' to take .*lora_A"):
        check_base(look(adapter), wide)


def _widened(base: Manifest) -> tuple[Any, ...]:
    return tuple(
        replace(tensor, shape=(tensor.shape[0], 65)) if tensor.name.endswith("q_proj.weight") else tensor
        for tensor in base.tensors
    )


@pytest.mark.parametrize(
    "changes",
    [
        {f"{PREFIX}.lora_A.weight": None},
        {f"{PREFIX}.lora_B.weight": None},
        {f"{PREFIX}.lora_A.weight": (3, 64)},  # A and B of two ranks
        {
            f"{PREFIX}.lora_A.weight": (5, 64),
            f"{PREFIX}.lora_B.weight": (64, 5),
        },  # a rank that the config does not name
        {f"{PREFIX}.lora_A.weight": (4, 63)},
        {f"{PREFIX}.lora_A.weight": (4, 64, 1)},
        {f"{PREFIX}.lora_A.weight": (4,)},
        {f"{PREFIX}.lora_B.bias": (63,)},
        {f"{PREFIX}.lora_magnitude_vector": (64, 1)},
        {f"{PREFIX}.lora_C.weight": (4, 64)},
        {f"{PREFIX}.lora_embedding_A": (4, 64)},
        {"base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight": (4, 64)},
        {"base_model.model.lm_head.weight": (321, 64)},  # trained on a larger vocabulary
        {"base_model.model.lm_tail.weight": (320, 64)},
        {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": (321, 64)},
        {"lm_head.weight": (320, 64)},
        {"base_model.model.": (1,)},
    ],
)
def test_a_tensor_that_fits_nothing_is_named(
    bases: Bases, adapter: Path, tmp_path: Path, changes: Mapping[str, tuple[int, ...] | None]
) -> None:
    source = look(_changed(adapter, tmp_path, changes))
    with pytest.raises(ShardMismatch, match=str(tmp_path)):
        check_base(source, bases(Spec("llama")))


def test_an_adapter_without_tensors_is_refused(bases: Bases, adapter: Path, tmp_path: Path) -> None:
    names = load_file(adapter / "adapter_model.safetensors")
    with pytest.raises(ShardMismatch, match="has no tensors"):
        check_base(look(_changed(adapter, tmp_path, dict.fromkeys(names))), bases(Spec("llama")))


def _changed(adapter: Path, directory: Path, changes: Mapping[str, tuple[int, ...] | None]) -> Path:
    """A copy whose tensors have other shapes; None: none."""
    import torch

    tensors = load_file(adapter / "adapter_model.safetensors")
    for name, shape in changes.items():
        tensors.pop(name, None)
        if shape is not None:
            tensors[name] = torch.zeros(shape)
    save_file(tensors, directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    return directory


def test_packed_weights_of_a_quantized_base_tell_no_shape(bases: Bases, adapter: Path) -> None:
    """A kernel knows what they unpack to; weights that are not packed still do tell."""
    base = bases(Spec("llama"))
    packed = tuple(
        replace(t, name=t.name.replace(".weight", ".qweight"), dtype="int32", shape=(t.shape[1] // 8, t.shape[0]))
        if "proj" in t.name
        else t
        for t in base.tensors
    )
    check_base(look(adapter), replace(base, tensors=packed, transformers=AS_STORED))
    with pytest.raises(ShardMismatch):
        check_base(look(adapter), replace(base, tensors=packed))
    with pytest.raises(ShardMismatch):
        check_base(look(adapter), replace(base, tensors=packed[:1], ties=(), transformers=AS_STORED))
    with pytest.raises(ShardMismatch):
        check_base(look(adapter), replace(base, tensors=_widened(base), transformers=AS_STORED))


def test_an_adapter_needs_a_base_and_says_which(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseMismatch, match="is an adapter of a model that it does not name; import that, then this"):
        check_base(look(adapter), None)
    _edit(_changed(adapter, tmp_path, {}), base_model_name_or_path="birds/whimbrel-7b")
    with pytest.raises(BaseMismatch, match=r"is an adapter of birds/whimbrel-7b; import that"):
        check_base(look(tmp_path), None)


def test_a_model_takes_no_base_and_an_adapter_is_none(bases: Bases, adapter: Path, llama: Path) -> None:
    base = bases(Spec("llama"))
    check_base(look(llama), None)
    with pytest.raises(BaseMismatch, match="is no adapter but a model of its own"):
        check_base(look(llama), base)
    with pytest.raises(BaseMismatch, match="is itself an adapter"):
        check_base(look(adapter), replace(base, base="1" * 64))


def test_a_model_with_an_adapters_config_beside_it_is_a_model(adapter: Path, llama: Path) -> None:
    (llama / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    source = look(llama)
    assert source.form is Form.STATE
    assert "adapter_config.json" not in source.kept


def test_the_config_travels_along(adapter: Path) -> None:
    source = look(adapter)
    assert source.config_name == "adapter_config.json"
    assert source.kept == ("adapter_config.json",)


def test_an_adapter_of_pickles_is_refused(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    with pytest.raises(NotACheckpoint, match=r"has no adapter_model\.safetensors"):
        look(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(PickleRefused, match=r"adapter_model\.bin.*to get adapter_model\.safetensors"):
        look(tmp_path)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"peft_type": "IA3"}, UnsupportedModel),
        ({"peft_type": None}, UnsupportedModel),
        ({"peft_type": ["LORA"]}, UnsupportedModel),
        ({"r": None}, NotACheckpoint),
        ({"r": True}, NotACheckpoint),
        ({"r": 0}, NotACheckpoint),
        ({"rank_pattern": [8]}, NotACheckpoint),
        ({"rank_pattern": {"q_proj": "8"}}, NotACheckpoint),
    ],
)
def test_a_config_that_describes_no_lora_is_refused(
    adapter: Path, tmp_path: Path, changes: dict[str, object], error: type[Exception]
) -> None:
    _edit(_changed(adapter, tmp_path, {}), **changes)
    with pytest.raises(error, match=r"adapter_config\.json"):
        look(tmp_path)


def _edit(directory: Path, **changes: object) -> None:
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
