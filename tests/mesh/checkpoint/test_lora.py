"""What adapter_config.json says of applying an adapter, against PEFT's own reading of it."""

import json
from typing import Any

import pytest
from peft import LoraConfig
from peft.utils.other import get_pattern_key

from mesh.checkpoint.errors import NotACheckpoint, UnsupportedModel
from mesh.checkpoint.lora import Name, check_applied, name_of, recipe

LAYER = "base_model.model.model.layers.0"


def config(**changes: Any) -> bytes:
    """What PEFT writes."""
    options: dict[str, Any] = {"task_type": "CAUSAL_LM", "r": 4, **changes}
    return json.dumps(LoraConfig(**options).to_dict(), default=list).encode()


@pytest.mark.parametrize("by_root", [False, True])
def test_scaling_is_pefts(by_root: bool) -> None:
    patterns = {r".*\.1\.mlp\.up_proj": 64, "q_proj": 2, r"layers\.[02]\.self_attn\.q_proj": 5}
    read = recipe(config(lora_alpha=16, alpha_pattern=patterns, use_rslora=by_root))
    for module in ("model.layers.1.mlp.up_proj", "model.layers.2.self_attn.q_proj", "q_proj", "model.layers.0.fc"):
        alpha = patterns.get(get_pattern_key(list(patterns), module), 16)
        assert read.scaling(module, 4) == alpha / (2 if by_root else 4)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"layer_replication": [[0, 2]]}, "repeats layers"),
        ({"alora_invocation_tokens": [1]}, "middle of a prompt"),
        ({"trainable_token_indices": [1]}, "single tokens"),
        ({"target_parameters": ["mlp.experts.down_proj"]}, "fused experts"),
        ({"use_qalora": True}, "QALoRA"),
        ({"init_lora_weights": "pissa"}, "base's weights were changed"),
    ],
)
def test_what_is_more_than_a_product_is_refused_with_its_reason(changes: dict[str, Any], why: str) -> None:
    plain = json.loads(config())
    with pytest.raises(UnsupportedModel, match=why):
        recipe(json.dumps(plain | changes).encode())


@pytest.mark.parametrize("start", [True, False, "gaussian", "orthogonal"])
def test_how_an_adapter_began_does_not_matter_where_its_base_was_left_alone(start: bool | str) -> None:
    recipe(json.dumps(json.loads(config()) | {"init_lora_weights": start}).encode())


@pytest.mark.parametrize("changes", [{"lora_alpha": "x"}, {"alpha_pattern": {"(": 1}}, {"alpha_pattern": [1]}])
def test_numbers_and_patterns_that_are_none_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModel, match="lora_alpha or alpha_pattern"):
        recipe(json.dumps(json.loads(config()) | changes).encode())
    with pytest.raises(NotACheckpoint):
        recipe(b"[]")


def test_a_tensor_belongs_to_a_module_of_the_base() -> None:
    assert name_of(f"{LAYER}.fc.lora_A.weight") == Name("model.layers.0.fc", added=".lora_A.weight")
    assert name_of(f"{LAYER}.fc.base_layer.bias") == Name("model.layers.0.fc", own="bias")
    assert name_of("base_model.model.lm_head.weight") == Name("lm_head", own="weight")
    old = name_of(f"{LAYER}.fc.lora_magnitude_vector.weight")
    assert old == name_of(f"{LAYER}.fc.lora_magnitude_vector")
    for tensor in (f"{LAYER}.mlp.experts.3.w1.lora_A.weight", f"{LAYER}.e.token_adapter.trainable_tokens_delta"):
        with pytest.raises(UnsupportedModel):
            check_applied(config(), [tensor])
