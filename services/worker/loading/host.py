"""The host device: a part is the store's own shared memory, mapped; elsewhere, memory that the stream fills."""

import mmap
import os

import torch
from torch import Tensor

from mesh.checkpoint.layout import Manifest


def map_part(descriptor: int, size: int) -> Tensor:
    """A sealed memfd as a uint8 tensor [size], without a copy; closes the descriptor.

    The mapping is private: a stray write would copy its page here and never reach the pool or another worker.
    """
    try:
        mapping = mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(descriptor)
    return torch.frombuffer(mapping, dtype=torch.uint8)


def blank_parts(manifest: Manifest) -> list[Tensor]:
    """Memory for every part: uint8 [bytes] each."""
    return [torch.empty(part.bytes, dtype=torch.uint8) for part in manifest.parts]
