"""One token through a skeleton on the meta device: which modules run when, what each attention layer caches."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from mesh.checkpoint.architecture import FOREIGN_ERRORS, Architecture
from mesh.checkpoint.records import KVSpec, LayerKV
from mesh.checkpoint.runners import why_not_packed
from mesh.checkpoint.weights import dtype_name

ATTENTION = "whimbrel_probe"  # no mask is registered under this name, so models build none


@dataclass(slots=True)
class Recording:
    """What one forward pass showed; `odd` says why a packed engine could not repeat it."""

    modules: list[str] = field(default_factory=list)  # in the order of first use
    layers: dict[int, LayerKV] = field(default_factory=dict)
    dtypes: set[torch.dtype] = field(default_factory=set)
    odd: str | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """The order in which modules with weights are first used, and the KV cache if a packed engine can run the model."""

    modules: tuple[str, ...]
    kv: KVSpec | None


_recording: ContextVar[Recording] = ContextVar("recording")


def trace(architecture: Architecture, dtype: torch.dtype) -> Trace:
    """Runs the skeleton. A model that fails has the modules used until then, and no KV spec."""
    model = architecture.skeleton
    model.to(dtype=dtype)  # type: ignore[call-arg]
    recording = Recording()
    ids = torch.zeros(1, 1, dtype=torch.long, device="meta")
    try:
        with _recorded(model, recording), torch.inference_mode():
            model(input_ids=ids, position_ids=ids.clone(), use_cache=False)
    except FOREIGN_ERRORS as error:
        recording.odd = str(error)
    packs = recording.odd is None and why_not_packed(model) is None
    return Trace(tuple(recording.modules), _kv_spec(recording, architecture.layers) if packs else None)


@contextmanager
def _recorded(model: PreTrainedModel, recording: Recording) -> Iterator[None]:
    AttentionInterface.register(ATTENTION, _record_attention)
    for module in model.modules():
        if isinstance(config := getattr(module, "config", None), PreTrainedConfig):
            config._attn_implementation = ATTENTION
            config._experts_implementation = "batched_mm"  # the only one that needs no values, and takes any dtype
        if isinstance(module, PreTrainedModel):
            module.warn_if_padding_and_no_attention_mask = _no_warning  # type: ignore[method-assign]
    hooks = [
        module.register_forward_pre_hook(lambda _module, _args, name=name: recording.modules.append(name))
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    token = _recording.set(recording)
    try:
        yield
    finally:
        _recording.reset(token)
        for hook in hooks:
            hook.remove()


def _record_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Stands in for attention: notes the shapes [1, heads, 1 token, dim], returns zeros [1, 1 token, heads, v_dim]."""
    recording = _recording.get()
    layer = getattr(module, "layer_idx", None)
    if not isinstance(layer, int) or layer in recording.layers:
        recording.odd = f"attention layer {layer} runs twice or has no number"
    elif attention_mask is not None or getattr(module, "is_causal", True) is False:
        recording.odd = f"attention layer {layer} has a mask of its own"
    else:
        recording.layers[layer] = LayerKV(
            heads=key.shape[1], k_dim=key.shape[3], v_heads=value.shape[1], v_dim=value.shape[3]
        )
        recording.dtypes |= {key.dtype, value.dtype}
    return query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3]), None


def _no_warning(*_args: object) -> None:
    """In place of one that reads the token ids, which have no values on the meta device."""


def _kv_spec(recording: Recording, layers: int) -> KVSpec | None:
    """None unless every layer, and nothing else, has attention."""
    if not layers or sorted(recording.layers) != list(range(layers)) or len(recording.dtypes) != 1:
        return None
    return KVSpec(
        layers=tuple(recording.layers[index] for index in range(layers)),
        dtype=dtype_name(recording.dtypes.pop()),
    )
