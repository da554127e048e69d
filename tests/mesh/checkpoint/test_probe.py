"""What an attention layer caches, and which models a packed engine must leave alone."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from mesh.checkpoint.architecture import max_context, understand
from mesh.checkpoint.layout import KVSpec, LayerKV
from mesh.checkpoint.origins.local import LocalOrigin
from mesh.checkpoint.probe import Trace, trace
from mesh.checkpoint.source import inspect

from .samples import DENSE, Spec, save

LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}
MAMBA = {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "head_dim": 16,
}


def _traced(directory: Path, family: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Trace:
    with closing(LocalOrigin(save(Spec(family, dtype), directory, **changes))) as origin:
        return trace(understand(inspect(origin)), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("family", "changes", "layer"),
    [
        ("llama", {}, LayerKV(2, 16, 2, 16)),
        ("llama", {"head_dim": 32, "num_key_value_heads": 1}, LayerKV(1, 32, 1, 32)),
        ("gpt2", {}, LayerKV(4, 16, 4, 16)),
        ("mixtral", {}, LayerKV(2, 16, 2, 16)),
        ("mistral", DENSE | {"sliding_window": 16}, LayerKV(2, 16, 2, 16)),
        ("modernbert-decoder", DENSE, LayerKV(4, 16, 4, 16)),  # its config insists on a pad token
        ("deepseek_v3", DENSE | LATENT, LayerKV(4, 24, 4, 16)),  # latent attention is cached expanded
    ],
)
def test_keys_and_values_are_measured(
    tmp_path: Path, family: str, changes: dict[str, Any], layer: LayerKV, dtype: torch.dtype
) -> None:
    spec = KVSpec((layer, layer), str(dtype).removeprefix("torch."))
    assert _traced(tmp_path, family, dtype, **changes).kv == spec


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mamba", {"vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}),
        ("qwen3_5_text", DENSE | LINEAR | {"num_hidden_layers": 4}),
        ("falcon_h1", DENSE | MAMBA),  # attention in every layer, and a state beside it
        ("doge", DENSE),  # computes a mask in every layer
        ("diffllama", DENSE),  # attends twice in every layer
        ("lfm2", DENSE | {"layer_types": ["conv", "full_attention"]}),
        ("bloom", {"vocab_size": 320, "hidden_size": 64, "n_layer": 2, "n_head": 4}),
        (
            "falcon",
            {"vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
        ),
        ("llama4_text", DENSE | {"head_dim": 16, "num_local_experts": 2, "attention_chunk_size": 32}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
        (
            "phi3",
            DENSE
            | {
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 1e4,
                    "short_factor": [1.0] * 8,
                    "long_factor": [2.0] * 8,
                },
                "original_max_position_embeddings": 64,
            },
        ),
    ],
)
def test_a_model_that_cannot_be_packed_has_no_kv_spec(tmp_path: Path, family: str, changes: dict[str, Any]) -> None:
    assert _traced(tmp_path, family, **changes).kv is None


def test_a_dynamic_rope_reaches_beyond_the_trained_positions(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    for directory, changes, expected in (("plain", {}, 128), ("dynamic", {"rope_parameters": rope}, 256)):
        source = save(Spec("llama", torch.float32), tmp_path / directory, max_position_embeddings=128, **changes)
        with closing(LocalOrigin(source)) as origin:
            assert max_context(understand(inspect(origin))) == expected


def test_a_rope_that_depends_on_positions_alone_can_be_packed(tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 1e4,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    assert _traced(tmp_path, "llama", rope_parameters=rope).kv is not None


def test_modules_are_seen_in_the_order_of_use(tmp_path: Path) -> None:
    modules = _traced(tmp_path, "llama").modules
    assert modules[:2] == ("model.embed_tokens", "model.layers.0.input_layernorm")
    assert modules[-3:] == ("model.layers.1.mlp.down_proj", "model.norm", "lm_head")
    assert len(set(modules)) == len(modules)
