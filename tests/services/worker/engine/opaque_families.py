"""Tiny random models that the packed runner cannot serve: hybrids, recurrent ones, ALiBi, chunked attention, rotary
embeddings that depend on length; and their oracle."""

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from services.worker.engine.batch import Limits
from services.worker.engine.model import assign, build_opaque
from services.worker.engine.numerics import FAST, Numerics
from services.worker.engine.opaque_proof import Proof, prove
from services.worker.engine.opaque_replica import OpaqueReplica
from tests.services.worker.engine.tiny import HEAD_16, LLAMA, VOCABULARY

DENSE = LLAMA | {"num_hidden_layers": 4}
HEADED = HEAD_16 | {"num_hidden_layers": 4}
OLD = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "eos_token_id": None}
PLAIN = {k: v for k, v in LLAMA.items() if k not in {"num_key_value_heads", "intermediate_size"}}
MAMBA = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8, "eos_token_id": None}
MAMBA_2 = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 16}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [3.0] * 8,
    "original_max_position_embeddings": 32,
}
# The name before the colon is transformers' model type.
OPAQUE: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # ALiBi, and other models from before the attention interface
        "bloom": {"vocab_size": VOCABULARY, "hidden_size": 64, "n_head": 4, "n_layer": 2, "eos_token_id": None},
        "mpt": {"vocab_size": VOCABULARY, "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 512},
        "falcon:alibi": PLAIN | {"alibi": True, "multi_query": False, "new_decoder_architecture": False},
        "falcon": PLAIN | {"alibi": False, "num_kv_heads": 2, "new_decoder_architecture": True},
        "gptj": OLD | {"rotary_dim": 8},
        "codegen": OLD | {"rotary_dim": 8, "n_ctx": 512},
        "gpt_neo": {
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 24,
            "max_position_embeddings": 512,
            "eos_token_id": None,
        },
        "xglm": {
            "vocab_size": VOCABULARY,
            "d_model": 64,
            "num_layers": 2,
            "attention_heads": 4,
            "ffn_dim": 96,
            "max_position_embeddings": 512,
            "eos_token_id": None,
        },
        "doge": LLAMA,  # a mask of its own
        "diffllama": LLAMA,  # attends twice in every layer
        # KV shared between layers, chunks that only a mask tells
        "gemma3n_text": HEADED
        | {
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window": 16,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": VOCABULARY,
            "laurel_rank": 4,
            "activation_sparsity_pattern": None,
        },
        "llama4_text": HEADED
        | {
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "attention_chunk_size": 16,
            "intermediate_size_mlp": 96,
            "interleave_moe_layer_step": 2,
            "layer_types": ["chunked_attention"] * 3 + ["full_attention"],
        },
        # rotary embeddings that depend on length; each of these crosses its border
        "phi3:longrope": LLAMA | {"rope_parameters": LONGROPE, "original_max_position_embeddings": 32},
        "llama:longrope": LLAMA | {"rope_parameters": LONGROPE},
        "llama:dynamic": LLAMA
        | {
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
            "max_position_embeddings": 32,
        },
        # recurrent ones
        "mamba": MAMBA,
        "mamba2": MAMBA | {"state_size": 16, "num_heads": 8, "head_dim": 16, "n_groups": 1, "chunk_size": 16},
        "falcon_mamba": MAMBA,
        "rwkv": {
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "attention_hidden_size": 64,
            "intermediate_size": 96,
            "context_length": 512,
            "eos_token_id": None,
        },
        # hybrids
        "recurrent_gemma": HEADED
        | {"lru_width": 64, "attention_window_size": 16, "block_types": ["recurrent", "recurrent", "attention"]},
        "qwen3_next": HEADED | LINEAR | MOE | {"shared_expert_intermediate_size": 32},
        "qwen3_5_text": HEADED | LINEAR,
        "lfm2": DENSE | {"layer_types": ["conv", "full_attention"] * 2},
        "jamba": DENSE
        | {
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 8,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "use_mamba_kernels": False,
        },
        "bamba": DENSE | MAMBA_2 | {"attn_layer_indices": [1, 3]},
        "zamba2": DENSE
        | {
            "mamba_d_state": 16,
            "n_mamba_heads": 8,
            "mamba_headdim": 16,
            "chunk_size": 16,
            "num_mem_blocks": 1,
            "layers_block_type": ["mamba", "hybrid"] * 2,
            "hybrid_layer_ids": [1, 3],
            "attention_head_dim": 32,
        },
        "falcon_h1": DENSE | MAMBA_2 | {"mamba_d_ssm": 128},
        "granitemoehybrid": DENSE
        | MAMBA_2
        | {"layer_types": ["mamba", "attention"] * 2, "num_local_experts": 0, "shared_intermediate_size": 64},
        "nemotron_h": HEADED
        | {
            "mamba_num_heads": 8,
            "mamba_head_dim": 16,
            "ssm_state_size": 16,
            "n_groups": 1,
            "chunk_size": 16,
            "hybrid_override_pattern": "M*M-",
        },
        "olmo_hybrid": DENSE
        | LINEAR
        | {"layer_types": ["linear_attention", "full_attention"] * 2, "linear_num_key_heads": 4},
        "minimax": HEADED
        | {
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "block_size": 16,
        },
    }
)


def config(family: str) -> PreTrainedConfig:
    """The family's tiny configuration; `initializer_range` is wide, so that greedy choices differ."""
    made: PreTrainedConfig = CONFIG_MAPPING[family.partition(":")[0]](**OPAQUE[family])
    made.initializer_range = 0.15
    return made


def fresh(family: str) -> PreTrainedModel:
    """A reference model that has seen no sequence yet, with weights drawn from a fixed seed."""
    torch.manual_seed(0)
    made: PreTrainedModel = AutoModelForCausalLM.from_config(config(family), dtype=torch.float32)  # type: ignore[no-untyped-call]
    made.generation_config.eos_token_id = None
    made.generation_config.pad_token_id = 0
    made.train(False)
    return made


@functools.cache
def greedy(family: str, prompt: tuple[int, ...], count: int) -> tuple[int, ...]:
    """What transformers generates after `prompt`, with nothing else before it."""
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        generate: Any = fresh(family).generate
        out = generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
    return tuple(out[0, len(prompt) :].tolist())


def own_replica(family: str, name: str = "", **options: Any) -> OpaqueReplica:
    """A replica whose weights nobody else has: one that may be unloaded."""
    model, proof = body.__wrapped__(family)
    return OpaqueReplica(name or family, model, 1 << 24, proof, eos_token_ids=(), **options)


@functools.cache
def body(family: str) -> tuple[PreTrainedModel, Proof]:
    """A skeleton with the reference's weights, and what was found out about it."""
    model = build_opaque(config(family), torch.float32)
    assign(model, fresh(family).state_dict())
    return model, prove(model)


def replica(
    family: str, *, kv_tokens: int = 0, sequences: int = 1, limits: Limits | None = None, numerics: Numerics = FAST
) -> OpaqueReplica:
    """A replica with memory for some sequences of `kv_tokens` tokens; with plenty, if that is 0."""
    model, proof = body(family)
    kv_bytes = sequences * proof.footprint.bytes(kv_tokens) if kv_tokens else 1 << 24
    return OpaqueReplica(family, model, kv_bytes, proof, eos_token_ids=(), limits=limits, numerics=numerics)
