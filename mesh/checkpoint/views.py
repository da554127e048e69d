"""Tensors as views of a checkpoint's parts in memory: no copy. Where the memory comes from is the caller's business."""

from collections.abc import Sequence

import torch

from mesh.checkpoint.records import Manifest


def tensor_views(manifest: Manifest, parts: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every name of state_dict(), ties included as the same object. `parts`: uint8 [bytes of the part] each.

    The manifest must have been validated: then no view reaches out of its part. Raises ValueError for other parts.
    """
    sizes = [part.numel() * part.itemsize for part in parts]
    if sizes != [part.bytes for part in manifest.parts]:
        raise ValueError(f"parts of {sizes} bytes are not those of checkpoint {manifest.digest}")
    typed: dict[tuple[int, str], torch.Tensor] = {}
    views: dict[str, torch.Tensor] = {}
    for tensor in manifest.tensors:
        key = tensor.part, tensor.dtype
        if key not in typed:
            typed[key] = parts[tensor.part].view(getattr(torch, tensor.dtype))
        base = typed[key]
        start = base.storage_offset() + tensor.offset // base.itemsize
        views[tensor.name] = base.as_strided(tensor.shape, tensor.strides, start)
    return views | {tie.name: views[tie.target] for tie in manifest.ties}
