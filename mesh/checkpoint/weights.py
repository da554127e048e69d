"""The tensors of model.state_dict(): transformers' own loader runs on symbols of the shards, and no number is read.

Seam: whoever has other tensors than a model class makes (as they are stored, an adapter's) builds a Weights of leaves.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from mesh.checkpoint.architecture import FOREIGN_ERRORS, Architecture
from mesh.checkpoint.errors import CheckpointError, ShardMismatch, UnsupportedModel
from mesh.checkpoint.expression import Expression, Leaf
from mesh.checkpoint.records import DTYPES, Tie
from mesh.checkpoint.shards import Shard, ShardTensor
from mesh.checkpoint.source import Source
from mesh.checkpoint.stream import Reader
from mesh.checkpoint.symbolic import Tracer, expression_of, memory_of


@dataclass(frozen=True, slots=True)
class Weights:
    """Every stored tensor by its runtime name, in the model's order, and the names that share one."""

    tensors: Mapping[str, Expression]
    ties: tuple[Tie, ...]
    activation_dtype: torch.dtype


def load(source: Source, architecture: Architecture, reader: Reader) -> Weights:
    """How each tensor is made of the shards. `reader` is asked only where the loader must compare tied weights.

    Raises ShardMismatch when the shards are not what the architecture has, UnsupportedModel when it cannot take them.
    """
    tracer = Tracer(reader)
    shards = {tensor.name: tracer.tensor(leaf_of(shard, tensor)) for shard in source.shards for tensor in shard.tensors}
    try:
        # By state_dict, not by path: then nothing in the directory but what was checked can play a part.
        loaded: Any = type(architecture.skeleton).from_pretrained(
            None,
            config=architecture.config,
            state_dict=shards,
            dtype="auto",
            attn_implementation="eager",
            ignore_mismatched_sizes=True,  # so that they are reported, and refused here
            output_loading_info=True,
            local_files_only=True,
            **architecture.options,
        )
    except (*FOREIGN_ERRORS, CheckpointError) as error:
        raise tracer.failure or ShardMismatch(
            f"{source.origin.url} does not load as {architecture.name}: {error}"
        ) from error
    model, report = loaded
    _check_report(source, architecture, report, shards)
    return _collect(source, model)


def leaf_of(shard: Shard, tensor: ShardTensor) -> Leaf:
    """A tensor as its shard holds it."""
    return Leaf(getattr(torch, tensor.dtype), tensor.shape, shard.file, tensor.offset)


def _check_report(
    source: Source,
    architecture: Architecture,
    report: Mapping[str, Iterable[Any]],
    shards: Mapping[str, torch.Tensor],
) -> None:
    unexpected = [name for name in report["unexpected_keys"] if not _is_old_mask(name, shards.get(name))]
    found = {
        "lack": report["missing_keys"],
        "have, unknown to it,": unexpected,
        "have in another shape": [key[0] for key in report["mismatched_keys"]],
        "cannot give it": report["error_msgs"],
    }
    for what, names in found.items():
        listed = sorted(str(name) for name in names)
        if listed:
            more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
            raise ShardMismatch(
                f"{source.origin.url} is no {architecture.name} as transformers builds it from config.json: "
                f"the shards {what} {', '.join(listed[:5])}{more}; config and weights must be of one model"
            )


def _is_old_mask(name: str, tensor: torch.Tensor | None) -> bool:
    """Whether it is a causal mask or its fill value, which old GPT checkpoints carry along and nobody loads."""
    if tensor is None or not name.endswith(("attn.bias", "attention.bias", ".masked_bias")):
        return False
    rows = tensor.shape[-1] if tensor.dim() == 4 else 0
    return tensor.dim() == 0 or tuple(tensor.shape) == (1, 1, rows, rows)


def _collect(source: Source, model: PreTrainedModel) -> Weights:
    """Tensors that would be the same memory are stored under the first name and tied under the others."""
    first: dict[object, str] = {}
    tensors: dict[str, Expression] = {}
    ties: list[Tie] = []
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, torch.Tensor) or dtype_name(tensor.dtype) not in DTYPES or tensor.is_meta:
            raise UnsupportedModel(f"{source.origin.url} has state {name!r} that is no plain tensor")
        target = first.setdefault(memory_of(tensor), name) if tensor.numel() else name
        if target == name:
            tensors[name] = expression_of(tensor)
        else:
            ties.append(Tie(name, target))
    return Weights(tensors, tuple(ties), model.dtype)


def dtype_name(dtype: torch.dtype) -> str:
    """The name that manifests use: "bfloat16"."""
    return str(dtype).removeprefix("torch.")
