from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from services.worker.engine.errors import UnsupportedArchitecture, WeightsMismatch
from services.worker.engine.model import assign, build, prepare, probe_kv, release
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.pool import KVSpec, LayerKV
from tests.services.worker.engine.tiny import (
    FAMILIES,
    LLAMA,
    config,
    greedy,
    prompt,
    random_model,
    replica,
    request,
    run,
    tokens_of,
)

EAGER = {"gemma2", "gpt_oss"}
TIED = [(family, tied) for family in FAMILIES for tied in (False, True)]


def saved_and_loaded(family: str, directory: Path, tied: bool) -> PreTrainedModel:
    random_model(family, tie_word_embeddings=tied).save_pretrained(directory)
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager" if family in EAGER else "sdpa"
    )
    return loaded


def one_buffer(model: PreTrainedModel) -> tuple[Tensor, dict[str, Tensor]]:
    """The model's weights side by side in one tensor, tied ones once: what a loader hands over."""
    kept: dict[int, str] = {}
    for name, tensor in model.state_dict().items():
        kept.setdefault(tensor.data_ptr(), name)
    state = {name: model.state_dict()[name] for name in kept.values()}
    buffer = torch.cat([tensor.flatten() for tensor in state.values()])
    pieces = torch.split(buffer, [tensor.numel() for tensor in state.values()])
    return buffer, {name: piece.view(state[name].shape) for name, piece in zip(state, pieces, strict=True)}


def logits(model: PreTrainedModel, attention: str) -> Tensor:
    model.set_attn_implementation(attention)
    with torch.inference_mode():
        output: Tensor = model(input_ids=torch.tensor([prompt(40)])).logits
    return output


def ties(model: PreTrainedModel) -> bool:
    head: Any = model.get_submodule("lm_head")
    return bool(head.weight is model.get_input_embeddings().weight)


@pytest.mark.parametrize(("family", "tied"), TIED)
def test_an_assigned_skeleton_computes_the_bits_of_from_pretrained(tmp_path: Path, family: str, tied: bool) -> None:
    original = saved_and_loaded(family, tmp_path, tied)
    buffer, views = one_buffer(original)
    skeleton = build(original.config, torch.float32)
    assign(skeleton, views)
    attention = "eager" if family in EAGER else "sdpa"
    assert torch.equal(logits(skeleton, attention), logits(original, attention))
    start, end = buffer.data_ptr(), buffer.data_ptr() + buffer.nbytes
    assert all(start <= parameter.data_ptr() < end for parameter in skeleton.parameters())
    assert ties(skeleton) == tied


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_a_released_body_holds_no_weights_and_can_be_assigned_again(family: str) -> None:
    model = random_model(family)
    skeleton = build(model.config, torch.float32)
    expected = logits(model, "sdpa")
    for _ in range(2):
        assign(skeleton, model.state_dict())
        assert torch.equal(logits(skeleton, "sdpa"), expected)
        release(skeleton)
        assert all(parameter.is_meta for parameter in skeleton.parameters())


def test_building_leaves_the_configuration_alone() -> None:
    mine = config("llama")
    before = mine.to_dict()
    build(mine, torch.bfloat16)
    assert mine.to_dict() == before


def test_a_tied_tensor_may_come_under_either_name() -> None:
    views = random_model("llama", tie_word_embeddings=True).state_dict()
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        skeleton = build(config("llama", tie_word_embeddings=True), torch.float32)
        assign(skeleton, {key: view for key, view in views.items() if key != name})
        assert ties(skeleton)


def test_tensors_that_do_not_fit_are_named() -> None:
    views = random_model("llama").state_dict()
    name = "model.layers.1.mlp.up_proj.weight"

    def attempt(changed: dict[str, Tensor]) -> None:
        assign(build(config("llama"), torch.float32), changed)

    with pytest.raises(WeightsMismatch, match=name):
        attempt({key: view for key, view in views.items() if key != name})
    with pytest.raises(WeightsMismatch, match=name):
        attempt(views | {name: torch.zeros(3, 3)})
    for unknown in ("model.layers.9.mlp.up_proj.weight", "model.norm.bias", "model.layers"):
        with pytest.raises(WeightsMismatch, match=unknown):
            attempt(views | {unknown: torch.zeros(3)})


def test_the_probe_sees_the_geometry_without_weights() -> None:
    def probed(family: str) -> KVSpec:
        return probe_kv(build(config(family), torch.bfloat16), 16)

    assert probed("llama") == KVSpec((LayerKV(2, 16, 16),) * 2, torch.bfloat16, 16)
    assert probed("deepseek_v3").layers == (LayerKV(4, 24, 16),) * 2
    assert probed("llama").block_bytes == 16 * 2 * 2 * (16 + 16) * 2
    assert probed("llama").fingerprint() == probed("mixtral").fingerprint()  # blocks of one shape
    assert probed("llama").fingerprint() != probed("deepseek_v3").fingerprint()


ROPE = {"rope_theta": 10000.0, "factor": 4.0}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [3.0] * 8,
    "original_max_position_embeddings": 64,
}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("mamba", {"num_hidden_layers": 2, "hidden_size": 32}, "hybrid|recurrent"),
    ("rwkv", {"num_hidden_layers": 2, "hidden_size": 32, "vocab_size": 64}, "recurrent"),
    ("qwen3_next", {"num_hidden_layers": 4}, "hybrid.*linear_attention"),
    ("bloom", {"n_layer": 2, "hidden_size": 32, "n_head": 2}, "ALiBi"),
    ("falcon", {"num_hidden_layers": 2, "alibi": True}, "ALiBi"),
    ("falcon", {"num_hidden_layers": 2, "alibi": False}, "cannot be built"),
    ("gptj", {"n_layer": 2, "n_embd": 64, "n_head": 4, "rotary_dim": 8}, "cannot be built"),
    ("llama4_text", {"num_hidden_layers": 4}, "chunked"),
    ("bart", {}, "encoder-decoder"),
    ("bert", {"num_hidden_layers": 2}, "not causal"),
    ("roformer", {"num_hidden_layers": 2, "is_decoder": True}, "position_ids"),
    ("xglm", {"num_layers": 2, "d_model": 32, "attention_heads": 2}, "0 of 2 layers"),
    ("doge", LLAMA, "mask of its own"),
    ("llama", LLAMA | {"rope_parameters": ROPE | {"rope_type": "dynamic"}}, "dynamic rotary"),
    ("phi3", LLAMA | {"rope_parameters": LONGROPE}, "longrope rotary positions: they depend on the longest"),
    ("clip_text_model", {}, "cannot be built"),
]


@pytest.mark.parametrize(("family", "settings", "why"), REFUSED)
def test_a_model_that_the_packed_runner_would_get_wrong_is_refused_with_the_reason(
    family: str, settings: dict[str, Any], why: str
) -> None:
    refused: PreTrainedConfig = CONFIG_MAPPING[family](**settings)
    with pytest.raises(UnsupportedArchitecture, match=why):
        probe_kv(build(refused, torch.float32))


class ForgetfulConfig(LlamaConfig):  # type: ignore[no-untyped-call]
    model_type = "forgetful"


class Forgetful(LlamaForCausalLM):  # type: ignore[no-untyped-call]
    """Has a buffer that is neither saved nor computed again."""

    config_class = ForgetfulConfig

    def __init__(self, config: ForgetfulConfig) -> None:
        super().__init__(config)
        self.register_buffer("scale", torch.ones(3), persistent=False)


def test_a_buffer_that_nobody_fills_is_refused_not_served_as_garbage() -> None:
    AutoModelForCausalLM.register(ForgetfulConfig, Forgetful, exist_ok=True)
    with pytest.raises(UnsupportedArchitecture, match="scale is a buffer that transformers does not rebuild"):
        build(ForgetfulConfig(**LLAMA), torch.float32)


def test_a_model_loaded_by_transformers_itself_runs_too() -> None:
    model = random_model("llama")
    prepare(model)
    spec = probe_kv(model, 8)
    served = PackedReplica("llama", "digest", model, 16 * spec.block_bytes)
    assert tokens_of(run(served, [request("r", prompt(9))])) == {"r": greedy("llama", prompt(9), 24)}


def test_a_replica_gives_its_weights_back() -> None:
    loaded = replica()
    module = loaded._runner.module
    run(loaded, [request("r", prompt(5), 2)])
    loaded.unload()
    assert all(parameter.is_meta for parameter in module.parameters())
