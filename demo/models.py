"""A factory of random checkpoints in Hugging Face directories, tiny or large, that share the demo model's tokenizer."""

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    LlamaForCausalLM,
    Mamba2Config,
    MixtralConfig,
    OPTConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)
from transformers.utils import logging

DEMO_MODEL = Path(__file__).parent / "model"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
MAX_POSITIONS = 2048


class ModelSpecBroken(ValueError):
    """A model was asked for that cannot be built; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes that all kinds share. `hidden` is the width of the residual stream, a multiple of 8."""

    hidden: int = 64
    layers: int = 2

    def __post_init__(self) -> None:
        if self.hidden < 8 or self.hidden % 8 or self.layers < 1:
            raise ModelSpecBroken(
                f"hidden must be a positive multiple of 8 and layers at least 1, not {self.hidden} and {self.layers}"
            )


def _init_std(shape: Shape) -> float:
    """Keeps the size of what passes through a layer: with the usual 0.02 a tiny layer changes next to nothing."""
    return 1.5 / math.sqrt(shape.hidden)


def _grouped(shape: Shape) -> dict[str, Any]:
    """Sizes of a model with four query heads on two key-value heads."""
    return {
        "hidden_size": shape.hidden,
        "intermediate_size": 2 * shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": _init_std(shape),
    }


def _headed(shape: Shape) -> dict[str, Any]:
    """As _grouped, for kinds whose head size is not derived from the width."""
    return {**_grouped(shape), "head_dim": shape.hidden // 4}


def _windowed(shape: Shape) -> dict[str, Any]:
    """As _headed, with a window of 64 tokens on every other layer."""
    types = ["sliding_attention" if index % 2 == 0 else "full_attention" for index in range(shape.layers)]
    return {**_headed(shape), "layer_types": types, "sliding_window": 64, "query_pre_attn_scalar": shape.hidden // 4}


def _qwen3_moe(shape: Shape) -> dict[str, Any]:
    return {**_headed(shape), "moe_intermediate_size": shape.hidden, "num_experts": 4, "num_experts_per_tok": 2}


def _mixtral(shape: Shape) -> dict[str, Any]:
    return {**_grouped(shape), "num_local_experts": 4, "num_experts_per_tok": 2}


def _opt(shape: Shape) -> dict[str, Any]:
    return {
        "hidden_size": shape.hidden,
        "word_embed_proj_dim": shape.hidden,
        "ffn_dim": 2 * shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": 4,
        "init_std": _init_std(shape),
    }


def _gpt2(shape: Shape) -> dict[str, Any]:
    return {
        "n_embd": shape.hidden,
        "n_layer": shape.layers,
        "n_head": 4,
        "n_positions": MAX_POSITIONS,
        "initializer_range": _init_std(shape),
    }


def _bloom(shape: Shape) -> dict[str, Any]:
    return {
        "hidden_size": shape.hidden,
        "n_layer": shape.layers,
        "n_head": 4,
        "initializer_range": _init_std(shape),
    }


def _lfm2(shape: Shape) -> dict[str, Any]:
    """As _grouped, with a short convolution instead of attention on every other layer."""
    types = ["conv" if index % 2 == 0 else "full_attention" for index in range(shape.layers)]
    return {**_grouped(shape), "layer_types": types}


def _mamba2(shape: Shape) -> dict[str, Any]:
    return {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "state_size": 16,
        "num_heads": 8,
        "head_dim": shape.hidden // 4,
        "n_groups": 1,
        "chunk_size": 16,
        "initializer_range": _init_std(shape),
    }


@dataclass(frozen=True, slots=True)
class _Kind:
    config: Callable[..., PreTrainedConfig]
    sizes: Callable[[Shape], Mapping[str, Any]]


_KINDS = {
    "llama": _Kind(LlamaConfig, _grouped),
    "qwen2": _Kind(Qwen2Config, _grouped),
    "qwen3": _Kind(Qwen3Config, _headed),
    "opt": _Kind(OPTConfig, _opt),
    "gpt2": _Kind(GPT2Config, _gpt2),
    "gemma": _Kind(GemmaConfig, _headed),
    "gemma2": _Kind(Gemma2Config, _windowed),
    "gemma3_text": _Kind(Gemma3TextConfig, _windowed),
    "mixtral": _Kind(MixtralConfig, _mixtral),
    "qwen3_moe": _Kind(Qwen3MoeConfig, _qwen3_moe),
    "bloom": _Kind(BloomConfig, _bloom),
    "lfm2": _Kind(Lfm2Config, _lfm2),
    "mamba2": _Kind(Mamba2Config, _mamba2),
}
KINDS = tuple(_KINDS)


def write_tiny(
    kind: str,
    directory: Path,
    *,
    seed: int = 0,
    hidden: int = 64,
    layers: int = 2,
    dtype: torch.dtype = torch.float32,
    tied: bool | None = None,
    max_shard_size: str = "5GB",
) -> Path:
    """Writes a randomly initialised model of a kind from KINDS, by save_pretrained, and returns `directory`.

    `tied` None keeps the architecture's own habit of sharing input and output embeddings; a small `max_shard_size`
    such as "50KB" gives several files and an index. The same arguments give the same weights; torch's global
    generator is left as it was. Raises ModelSpecBroken for an unknown kind or sizes that do not divide.
    """
    if kind not in _KINDS:
        raise ModelSpecBroken(f"no kind of model is called {kind!r}; choose one of {', '.join(KINDS)}")
    config = _config(_KINDS[kind], Shape(hidden, layers), tied)
    auto: Any = AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config)
    if config.tie_word_embeddings:
        _quieten_embedding(model)
    _save(model.to(dtype), directory, max_shard_size)
    return directory


def write_random_llama(
    directory: Path,
    parameters_b: float = 1.0,
    dtype: torch.dtype = torch.bfloat16,
    *,
    seed: int = 0,
    max_shard_size: str = "1GB",
) -> Path:
    """Writes a Llama of about `parameters_b` billion random weights, for benchmarks, and returns `directory`.

    The architecture is built without storage and filled in place, so peak memory is the weights plus one shard.
    Raises ModelSpecBroken below 0.01 billion.
    """
    _save(_random_llama(_llama_of_size(parameters_b), dtype, "cpu", seed), directory, max_shard_size)
    return directory


def write_random_shaped(directory: Path, *, seed: int = 0, **sizes: Any) -> Path:
    """Writes a bfloat16 Llama with these entries of its config, drawn on a card if there is one: so 16 GB take a
    second, not minutes. Returns `directory`."""
    config = LlamaConfig(tie_word_embeddings=False, **(_special_ids() | sizes))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    _save(_random_llama(config, torch.bfloat16, device, seed), directory, "1GB")
    return directory


def _random_llama(config: LlamaConfig, dtype: torch.dtype, device: str, seed: int) -> Any:
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
    model.to(dtype)
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.02, generator=generator) if weight.ndim > 1 else weight.fill_(1.0)
    return model


def write_random_moe(directory: Path, layers: int, experts: int, *, hidden: int = 256, seed: int = 0) -> Path:
    """Writes a bfloat16 Qwen3 mixture of random experts, for benchmarks, and returns `directory`.

    Each layer has `experts` of them, each of three matrices of `hidden` squared, saved one by one.
    """
    sizes = {**_qwen3_moe(Shape(hidden, layers)), "num_experts": experts, "initializer_range": 0.02}
    config = Qwen3MoeConfig(**sizes, max_position_embeddings=MAX_POSITIONS, tie_word_embeddings=False, **_special_ids())
    auto: Any = AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config, dtype=torch.bfloat16)
    _save(model, directory, "1GB")
    return directory


def write_random_decoder(directory: Path, layers: int, vocabulary: int, dtype: str, *, seed: int = 0) -> Path:
    """Writes a Llama 768 wide, its embeddings tied, for benchmarks of engines, and returns `directory`.

    Its weights are wide enough that a greedy answer does not repeat itself. The tokenizer knows fewer words.
    """
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=layers,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=MAX_POSITIONS,
        initializer_range=0.05,
        tie_word_embeddings=True,
    )
    auto: Any = AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config, dtype=getattr(torch, dtype))
    _save(model, directory, "1GB")
    return directory


def write_random_narrow(directory: Path, layers: int, positions: int, *, seed: int = 0) -> Path:
    """Writes a bfloat16 Llama 256 wide, for benchmarks of what moves: beside its KV, 2 KiB a token and layer, its
    arithmetic is small. Returns `directory`."""
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=64,
        max_position_embeddings=positions,
        initializer_range=0.06,
        **_special_ids(),
    )
    auto: Any = AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config, dtype=torch.bfloat16)
    _save(model, directory, "1GB")
    return directory


def _quieten_embedding(model: Any) -> None:
    """Unless a tied embedding is small, it finds itself in the output, and a random model repeats its last token."""
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(0.1)


def _llama_of_size(parameters_b: float) -> LlamaConfig:
    """The widest of a few common shapes that still has twelve layers; layers make up the number."""
    if parameters_b < 0.01:
        raise ModelSpecBroken(f"a random Llama has at least 0.01 billion weights, not {parameters_b}; try write_tiny")
    special = _special_ids()
    for hidden in (4096, 3072, 2048, 1536, 1024, 768, 512, 256):
        intermediate, key_width = hidden * 11 // 4, hidden // 4
        layer = 2 * hidden * hidden + 2 * hidden * key_width + 3 * hidden * intermediate
        layers = round((parameters_b * 1e9 - 2 * special["vocab_size"] * hidden) / layer)
        if layers >= 12:
            break
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 256,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=False,
        **special,
    )


def _config(kind: _Kind, shape: Shape, tied: bool | None) -> PreTrainedConfig:
    tie = {} if tied is None else {"tie_word_embeddings": tied}
    unlimited = {GPT2Config, BloomConfig, Mamba2Config}  # or limited under another name
    positions = {} if kind.config in unlimited else {"max_position_embeddings": MAX_POSITIONS}
    return kind.config(**kind.sizes(shape), **positions, **_special_ids(), **tie)


def _special_ids() -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _save(model: Any, directory: Path, max_shard_size: str) -> None:
    with _no_progress_bar():
        model.save_pretrained(directory, max_shard_size=max_shard_size)
    for name in TOKENIZER_FILES:
        shutil.copyfile(DEMO_MODEL / name, directory / name)


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    """save_pretrained draws a bar even for a model of a few kilobytes."""
    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
