"""KV cut into messages: consecutive layers of consecutive blocks, about a MiB each; and into pieces of a pipe, of whole
blocks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import xxhash
from torch import Tensor

from mesh.clients.receive_wire import Blocks

MESSAGE_BYTES = 1 << 20
PIPE_BYTES = 4 << 20  # about: what is read, summed up and sent while a cache has it


@dataclass(frozen=True, slots=True)
class Piece:
    """Blocks `first` to `end` of some layers, whose first and end are `layers`."""

    layers: tuple[int, int]
    first: int
    end: int


def pieces(layer_bytes: Sequence[int], first: int, end: int) -> Iterator[Piece]:
    """Of blocks `first` to `end`; `layer_bytes` are of one block in each layer."""
    at_once = max(1, MESSAGE_BYTES // max(1, sum(layer_bytes)))
    for start in range(first, end, at_once):
        for layers in _groups(layer_bytes):
            yield Piece(layers, start, min(end, start + at_once))


def pipe_pieces(block_bytes: int, first: int, end: int) -> list[tuple[int, int]]:
    """First and end of each."""
    at_once = max(1, PIPE_BYTES // block_bytes)
    return [(start, min(end, start + at_once)) for start in range(first, end, at_once)]


def packed(piece: Piece, data: Sequence[Tensor]) -> Blocks:
    """What `export` gave for a piece, as a message; nothing is copied."""
    views = tuple(one.contiguous().numpy().reshape(-1).data for one in data)
    first_layer, end_layer = piece.layers
    place = (first_layer, end_layer - first_layer, piece.first, piece.end - piece.first)
    return Blocks(*place, views, checksum(views))


def unpacked(blocks: Blocks, layer_bytes: Sequence[int]) -> list[Tensor]:
    """The bytes [blocks, layer bytes] of each of its layers, which it has been checked to have. A copy, for torch takes
    no memory that it may not write to."""
    data, start = torch.frombuffer(bytearray(blocks.data[0]), dtype=torch.uint8), 0
    layers = []
    for width in layer_bytes:
        layers.append(data[start : start + width * blocks.blocks].view(blocks.blocks, width))
        start += width * blocks.blocks
    return layers


def checksum(data: Sequence[memoryview]) -> int:
    """xxh3-64 of all pieces together."""
    digest = xxhash.xxh3_64()
    for piece in data:
        digest.update(piece)
    return digest.intdigest()


def _groups(layer_bytes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of layers that fit a message; each has one at least."""
    first = total = 0
    for layer, size in enumerate(layer_bytes):
        if layer > first and total + size > MESSAGE_BYTES:
            yield first, layer
            first, total = layer, 0
        total += size
    yield first, len(layer_bytes)
