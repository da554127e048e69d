"""Tiny random models of many families, and the oracle: transformers' own greedy generate, one sequence at a time."""

import functools
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from services.worker.engine.model import assign, build, probe_kv
from services.worker.engine.packed_replica import PackedReplica
from services.worker.engine.replica import Replica
from services.worker.engine.request import EngineRequest, TokenStep
from services.worker.engine.sample import SamplingParams

VOCABULARY = 512
BLOCK_TOKENS = 8
LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
HEAD_16 = LLAMA | {"head_dim": 16}
WINDOWED = HEAD_16 | {"sliding_window": 24, "query_pre_attn_scalar": 16}
FAMILIES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "llama": LLAMA,
        "mistral": LLAMA | {"sliding_window": 24},
        "qwen2": LLAMA,
        "qwen3": HEAD_16,
        "opt": {
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "word_embed_proj_dim": 32,
            "ffn_dim": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 512,
            "eos_token_id": None,
        },
        "gpt2": {
            "vocab_size": VOCABULARY,
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 512,
            "eos_token_id": None,
            "pad_token_id": 0,
        },
        "gemma": HEAD_16,
        "gemma2": WINDOWED,
        "gemma3_text": WINDOWED | {"layer_types": ["sliding_attention", "full_attention"]},
        "mixtral": LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2},
        "qwen3_moe": HEAD_16 | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40},
        "gpt_oss": HEAD_16
        | {
            "sliding_window": 24,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "deepseek_v3": LLAMA
        | {
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
        },
    }
)

# Tried less thoroughly: what sets them apart is not how they attend.
FURTHER: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "bitnet": LLAMA,
        "cohere": LLAMA,
        "glm4": HEAD_16,
        "gpt_neox": {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"},
        "granite": LLAMA,
        "nemotron": LLAMA,
        "olmo2": LLAMA,
        "phi": LLAMA,
        "phi3": LLAMA,
        "qwen2_moe": LLAMA
        | {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 40,
            "shared_expert_intermediate_size": 40,
        },
        "smollm3": LLAMA,
        "stablelm": LLAMA,
        "starcoder2": LLAMA,
    }
)


def config(family: str, **changes: Any) -> PreTrainedConfig:
    """The family's tiny configuration; `initializer_range` is wide, so that greedy choices differ."""
    made: PreTrainedConfig = CONFIG_MAPPING[family](
        **{**(FAMILIES | FURTHER)[family], "initializer_range": 0.15, **changes}
    )
    return made


def random_model(family: str, **changes: Any) -> PreTrainedModel:
    """A reference model with weights drawn from a fixed seed, on transformers' own attention."""
    torch.manual_seed(0)
    eager = family in {"gemma2", "gpt_oss"}  # soft caps and sinks: what sdpa leaves out
    made: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        config(family, **changes), dtype=torch.float32, attn_implementation="eager" if eager else "sdpa"
    )
    made.generation_config.eos_token_id = None
    made.generation_config.pad_token_id = 0
    made.train(False)
    return made


@functools.cache
def reference(family: str) -> PreTrainedModel:
    """The family's reference model, made once."""
    return random_model(family)


@functools.cache
def greedy(family: str, prompt: tuple[int, ...], count: int) -> tuple[int, ...]:
    """What transformers generates after `prompt`."""
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        generate: Any = reference(family).generate
        out = generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
    return tuple(out[0, len(prompt) :].tolist())


def prompt(length: int, seed: int = 1) -> tuple[int, ...]:
    """`length` random tokens."""
    generator = torch.Generator().manual_seed(1000 * seed + length)
    return tuple(torch.randint(2, VOCABULARY, (length,), generator=generator).tolist())


def body(family: str, **changes: Any) -> PreTrainedModel:
    """A skeleton that runs on the reference's own tensors."""
    model = build(config(family, **changes), torch.float32)
    assign(model, (random_model(family, **changes) if changes else reference(family)).state_dict())
    return model


def replica(family: str = "llama", *, blocks: int = 64, name: str = "", **options: Any) -> PackedReplica:
    """A replica of the family with `blocks` blocks of 8 tokens, whose memory is full of NaN at first."""
    module = body(family)
    spec = probe_kv(module, BLOCK_TOKENS)
    made = PackedReplica(name or family, f"digest of {family}", module, blocks * spec.block_bytes, spec=spec, **options)
    made._runner.pool.buffer.fill_(0xFF)
    return made


def request(
    request_id: str,
    prompt_ids: tuple[int, ...],
    count: int = 24,
    *,
    on: str = "llama",
    generated: tuple[int, ...] = (),
    **params: Any,
) -> EngineRequest:
    """Greedy, unless `params` say otherwise."""
    sampling = SamplingParams(**{"max_tokens": count, "temperature": 0.0, **params})
    return EngineRequest(request_id, on, prompt_ids, sampling, generated)


def tokens_of(steps: Iterable[TokenStep]) -> dict[str, tuple[int, ...]]:
    """All tokens of each request, in order; fails if a seq is out of order."""
    tokens: dict[str, tuple[int, ...]] = {}
    next_seq: dict[str, int] = {}
    for step in steps:
        assert step.seq == next_seq.setdefault(step.request_id, step.seq)
        next_seq[step.request_id] += len(step.tokens)
        tokens[step.request_id] = tokens.get(step.request_id, ()) + step.tokens
    return tokens


def run(replica: Replica, requests: Iterable[EngineRequest], steps_between: int = 0) -> list[TokenStep]:
    """Steps the replica by hand until it is idle, with new requests arriving `steps_between` steps apart."""
    produced: list[TokenStep] = []
    with torch.inference_mode():
        for one in requests:
            replica.check(one)
            produced += replica.add(one)
            for _ in range(steps_between):
                produced += replica.step() if replica.has_work else []
        while replica.has_work:
            produced += replica.step()
    return produced
