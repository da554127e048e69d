"""Writes one part: pieces where the plan says, zeros between them, each unit hashed on its way to the disk."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from blake3 import blake3

from mesh.checkpoint.plan import Plan, PlannedUnit
from mesh.checkpoint.records import Unit

BUFFER_BYTES = 1 << 20  # gathers small tensors
CHUNK_BYTES = 8 << 20  # what is written and hashed at a time, so that the hash finds it in the cache


def write_part(
    path: Path, plan: Plan, tensors: Mapping[str, torch.Tensor], on_bytes: Callable[[int], None]
) -> tuple[Unit, ...]:
    """Writes and fsyncs the file; `on_bytes` hears the bytes written so far. Returns the units with their hashes."""
    with path.open("xb", buffering=BUFFER_BYTES) as file:
        units = tuple(_write_unit(file, unit, tensors, on_bytes) for unit in plan.units)
        _pad(file, plan.bytes)
        file.flush()
        os.fsync(file.fileno())
    return units


def _write_unit(
    file: BinaryIO, unit: PlannedUnit, tensors: Mapping[str, torch.Tensor], on_bytes: Callable[[int], None]
) -> Unit:
    hasher = blake3()
    _pad(file, unit.offset)
    for piece in unit.pieces:
        hasher.update(_pad(file, piece.offset))
        tensor = tensors[piece.tensor]
        data = bytes_of(tensor if piece.expert is None else tensor[piece.expert])
        for start in range(0, len(data), CHUNK_BYTES):
            chunk = data[start : start + CHUNK_BYTES]
            file.write(chunk)
            hasher.update(chunk)
            on_bytes(piece.offset + start + len(chunk))
    return Unit(
        name=unit.name,
        kind=unit.kind,
        part=0,
        offset=unit.offset,
        bytes=unit.bytes,
        hash=hasher.hexdigest(),
        layer=unit.layer,
        expert=unit.expert,
    )


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The tensor's bytes, row-major: a view if it lies so in memory, else a copy."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().data


def _pad(file: BinaryIO, offset: int) -> bytes:
    """Writes zeros up to `offset`, and returns them."""
    zeros = bytes(offset - file.tell())
    file.write(zeros)
    return zeros
