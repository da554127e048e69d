"""The tensors of model.state_dict(), made from shards by transformers' own loader, so equal to what it loads."""

import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from mesh.checkpoint.architecture import FOREIGN_ERRORS, Architecture
from mesh.checkpoint.errors import ShardMismatch, UnsupportedModel
from mesh.checkpoint.origin import Origin
from mesh.checkpoint.records import DTYPES, Tie
from mesh.checkpoint.shards import Shard
from mesh.checkpoint.source import Source

READ_BYTES = 64 << 20  # asked of an origin at once


@dataclass(frozen=True, slots=True)
class Weights:
    """Every stored tensor by its runtime name, in the model's order, and the names that share one."""

    tensors: Mapping[str, torch.Tensor]
    ties: tuple[Tie, ...]
    activation_dtype: torch.dtype


def load(source: Source, architecture: Architecture) -> Weights:
    """Dense tensors stay views of what was read; fused experts are built beside it.

    Raises ShardMismatch when the shards are not what the architecture has, UnsupportedModel when it cannot take them.
    """
    shards = {name: tensor for shard in source.shards for name, tensor in _read(source.origin, shard)}
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
        )
    except FOREIGN_ERRORS as error:
        raise ShardMismatch(f"{source.origin.url} does not load as {architecture.name}: {error}") from error
    model, report = loaded
    _check_report(source, architecture, report, shards)
    return _collect(source, model)


def _read(origin: Origin, shard: Shard) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a file, as views of memory that is gone with the last of them."""
    mapping = mmap.mmap(-1, max(origin.size(shard.file) or 0, 1))
    with memoryview(mapping) as whole:
        for start in range(0, len(whole), READ_BYTES):
            origin.read_into(shard.file, start, whole[start : start + READ_BYTES])
    for tensor in shard.tensors:
        dtype: torch.dtype = getattr(torch, tensor.dtype)
        if not tensor.bytes:
            yield tensor.name, torch.empty(tensor.shape, dtype=dtype)
            continue
        data = torch.frombuffer(mapping, dtype=torch.uint8, count=tensor.bytes, offset=tensor.offset)
        yield tensor.name, data.view(dtype).reshape(tensor.shape)


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
    """Tensors that are the same memory are stored under the first name and tied under the others."""
    first: dict[object, str] = {}
    tensors: dict[str, torch.Tensor] = {}
    ties: list[Tie] = []
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, torch.Tensor) or dtype_name(tensor.dtype) not in DTYPES:
            raise UnsupportedModel(f"{source.origin.url} has state {name!r} that is no plain tensor")
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        target = first.setdefault(place, name) if tensor.numel() else name
        if target == name:
            tensors[name] = tensor
        else:
            ties.append(Tie(name, target))
    return Weights(tensors, tuple(ties), model.dtype)


def dtype_name(dtype: torch.dtype) -> str:
    """The name that manifests use: "bfloat16"."""
    return str(dtype).removeprefix("torch.")
