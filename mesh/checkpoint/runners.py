"""What runs an architecture: the packed engine if sequences can share one forward pass there, else the opaque one."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

PACKABLE_LAYERS = frozenset({"full_attention", "sliding_attention"})
CACHES = ("past_key_values", "cache_params", "state")  # the names by which models take and return theirs


def cache_name(model: PreTrainedModel) -> str | None:
    """By which name the model takes what it has kept of a sequence; None if it keeps nothing."""
    takes = inspect.signature(model.forward).parameters
    return next((name for name in CACHES if name in takes), None)


def why_not_packed(model: PreTrainedModel) -> str | None:
    """What rules out that sequences share a forward pass of this model, as far as its class and configuration tell."""
    name = model.config.model_type
    if why := why_config_is_not_packed(model.config):
        return why
    if model._is_stateful:
        return f"{name} keeps recurrent state, which is not in KV blocks"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return f"{name} does not take position_ids"
    return None


def why_config_is_not_packed(config: PreTrainedConfig) -> str | None:
    """The same of a configuration alone."""
    why = next(_hindrances(config), None)
    return f"{config.model_type} {why}" if why else None


def _hindrances(config: PreTrainedConfig) -> Iterator[str]:
    text = config.get_text_config(decoder=True)
    others = set(getattr(text, "layer_types", None) or ()) - PACKABLE_LAYERS
    if getattr(config, "is_encoder_decoder", False):
        yield "is an encoder-decoder"
    if "chunked_attention" in others or getattr(text, "attention_chunk_size", None):
        yield "uses chunked attention, which only its mask tells"
    if others:
        yield f"is hybrid: it has layers of type {', '.join(sorted(others))}"
    if getattr(text, "alibi", False) or config.model_type in {"bloom", "mpt"}:
        yield "uses ALiBi position biases"
    if getattr(text, "num_kv_shared_layers", 0):
        yield "shares KV between layers"
    if moving := {kind for kind in rope_types(text) if "dynamic" in kind or kind == "longrope"}:
        yield f"uses {', '.join(sorted(moving))} rotary positions: they depend on the longest sequence of a batch"


def stretch(config: PreTrainedConfig) -> float:
    """How many times its trained positions a model reaches: dynamic rotary embeddings grow with the sequence."""
    rope: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    return float(rope.get("factor") or 1.0) if rope.get("rope_type") == "dynamic" else 1.0


def rope_types(config: PreTrainedConfig) -> Iterator[str]:
    """The kinds of its rotary embeddings."""
    rope: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    for parameters in (rope, *rope.values()):
        if isinstance(parameters, Mapping):
            yield str(parameters.get("rope_type") or parameters.get("type") or "default")
