"""Small models of many families, saved as Hugging Face saves them, and a manifest made by hand."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from mesh.checkpoint import layout
from mesh.checkpoint.layout import File, KVSpec, LayerKV, Manifest, Part, Tensor, Tie, Unit, UnitKind

DENSE = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FAMILIES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "llama": DENSE,
        "qwen2": DENSE,
        "qwen3": DENSE | {"head_dim": 16},
        "opt": {
            "vocab_size": 320,
            "hidden_size": 64,
            "word_embed_proj_dim": 32,  # has layers before the first and after the last
            "ffn_dim": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "do_layer_norm_before": True,
        },
        "gpt2": {"vocab_size": 320, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "pad_token_id": 0},
        "gemma2": DENSE | {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16},
        "mixtral": DENSE | {"num_local_experts": 4, "num_experts_per_tok": 2},
        "qwen3_moe": DENSE | {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40},
    }
)


@dataclass(frozen=True, slots=True)
class Spec:
    """A model to make."""

    family: str = "llama"
    dtype: torch.dtype = torch.float32
    tied: bool = False
    shard: str = "50GB"


def make(spec: Spec, **changes: Any) -> PreTrainedModel:
    """The model, with weights drawn from a fixed seed; `changes` go into its config."""
    settings = {**FAMILIES.get(spec.family, {}), "tie_word_embeddings": spec.tied, **changes}
    config = CONFIG_MAPPING[spec.family](**settings)
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        config, dtype=spec.dtype, attn_implementation="eager"
    )
    model.eval()  # type: ignore[no-untyped-call]
    return model


def save(spec: Spec, directory: Path, **changes: Any) -> Path:
    """Saves the model as save_pretrained does, with a tokenizer's files beside it."""
    make(spec, **changes).save_pretrained(directory, max_shard_size=spec.shard)
    (directory / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    (directory / "LICENSE").write_text("Apache-2.0")
    return directory


def edit_config(directory: Path, **changes: Any) -> None:
    """Changes fields of config.json; None removes one."""
    path = directory / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def sealed(manifest: Manifest) -> Manifest:
    """The manifest with the digest it ought to have."""
    return replace(manifest, digest=layout.digest_of(manifest))


def manifest() -> Manifest:
    """A valid manifest with one of everything: a dense unit, two experts, a fused tensor, a tie, a file, a KV spec."""
    digest = "0" * 64
    return sealed(
        Manifest(
            digest=digest,
            source="/models/tiny",
            architecture="TinyForCausalLM",
            model_type="tiny",
            transformers="5.0.0",
            config_digest=digest,
            dtype="float32",
            max_context=128,
            parts=(Part("part-000.bin", 0, 16384),),
            units=(
                Unit("embedding", UnitKind.EMBEDDING, 0, 0, 4160, digest),
                Unit("layers.0.experts.0", UnitKind.EXPERT, 0, 8192, 96, digest, 0, 0),
                Unit("layers.0.experts.1", UnitKind.EXPERT, 0, 12288, 96, digest, 0, 1),
            ),
            tensors=(
                Tensor("embed", "float32", (8, 128), (128, 1), 0, 0),
                Tensor("bias", "bfloat16", (32,), (1,), 0, 4096),
                Tensor("experts", "float32", (2, 3, 8), (1024, 8, 1), 0, 8192),
            ),
            ties=(Tie("head", "embed"),),
            files=(File("config.json", 10, digest),),
            kv=KVSpec((LayerKV(2, 16, 2, 16),), "bfloat16"),
        )
    )
