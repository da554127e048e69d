"""What one worker sends another of a request that moves, to and from the wire; bulk is written and read by hand."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError
from whimbrel.worker.v1 import worker_pb2 as pb

from mesh.clients.fields import (
    BYTES,
    FIXED64,
    NOTHING,
    VARINT,
    Field,
    bytes_head,
    fields,
    fixed_to,
    number_to,
    numbers_from,
)
from mesh.errors import DataLoss

NAME = "ReceiveRequest"
OPENING, BLOCKS, MANIFEST, TENSOR = (1, BYTES), (2, BYTES), (3, BYTES), (4, BYTES)
FIRST_LAYER, LAYERS, FIRST_BLOCK, COUNT = (1, VARINT), (2, VARINT), (3, VARINT), (4, VARINT)
BLOCKS_DATA, BLOCKS_CHECKSUM = (5, BYTES), (6, FIXED64)
TENSOR_DATA = (5, BYTES)


@dataclass(frozen=True, slots=True)
class Opening:
    """First: which move it is for. Between equal layouts, blocks and states are interchangeable."""

    move_id: str
    layout: bytes


@dataclass(frozen=True, slots=True)
class Blocks:
    """KV of consecutive blocks in consecutive layers, layer by layer and block by block. `data`, in pieces when it is
    sent, keeps its message alive when it came; `checksum` is its xxh3-64."""

    first_layer: int
    layers: int
    first_block: int
    blocks: int
    data: tuple[memoryview, ...]
    checksum: int

    @property
    def bytes(self) -> int:
        """Size of the data."""
        return sum(len(piece) for piece in self.data)


@dataclass(frozen=True, slots=True)
class StateTensor:
    """One tensor of a state, or `data` of it from byte `offset` on; `path` is where it lies."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    data: memoryview
    checksum: int

    @property
    def bytes(self) -> int:
        """Size of the data."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Last: the sequence as it stood. `numbers` are a state's, as a JSON object of their paths."""

    token_ids: tuple[int, ...]  # of prompt and answer together
    kv_tokens: int  # leading ones whose KV, or state, was sent or is there already
    numbers: str = ""


Part = Opening | Blocks | StateTensor | Manifest


def part_to(part: Part) -> bytes:
    """To the wire; the data of bulk is copied once, which grpc cannot do without."""
    match part:
        case Opening(move_id, layout):
            return pb.ReceiveRequest(opening=pb.Opening(move_id=move_id, layout=layout)).SerializeToString()
        case Manifest(token_ids, kv_tokens, numbers):
            manifest = pb.Manifest(token_ids=token_ids, kv_tokens=kv_tokens, numbers=numbers)
            return pb.ReceiveRequest(manifest=manifest).SerializeToString()
        case Blocks():
            return _blocks_to(part)
        case StateTensor():
            return _tensor_to(part)


def part_from(message: bytes) -> Part | None:
    """From the wire, the data of bulk not copied; None for a part that we do not know. Raises DataLoss."""
    part: Part | None = None
    for field in fields(memoryview(message), NAME):
        part = _part_from(field) or part
    return part


def _part_from(field: Field) -> Part | None:
    try:
        if field.key == OPENING:
            opening = pb.Opening.FromString(bytes(field.data))
            return Opening(opening.move_id, opening.layout)
        if field.key == MANIFEST:
            manifest = pb.Manifest.FromString(bytes(field.data))
            return Manifest(tuple(manifest.token_ids), manifest.kv_tokens, manifest.numbers)
        if field.key == TENSOR:
            return _tensor_from(field.data)
    except DecodeError as error:
        raise DataLoss(f"a peer sent a malformed {NAME}: {error}", reason="BAD_STREAM") from error
    return _blocks_from(field.data) if field.key == BLOCKS else None


def _blocks_to(part: Blocks) -> bytes:
    places = (part.first_layer, part.layers, part.first_block, part.blocks)
    keys = (FIRST_LAYER, LAYERS, FIRST_BLOCK, COUNT)
    head = b"".join(number_to(key[0], number) for key, number in zip(keys, places, strict=True))
    return _bulk(BLOCKS[0], head + bytes_head(BLOCKS_DATA[0], part.bytes), part.data, part.checksum)


def _blocks_from(message: memoryview) -> Blocks:
    numbers, data = dict.fromkeys((FIRST_LAYER, LAYERS, FIRST_BLOCK, COUNT, BLOCKS_CHECKSUM), 0), NOTHING
    for field in fields(message, "Blocks"):
        if field.key == BLOCKS_DATA:
            data = field.data
        elif field.key in numbers:
            numbers[field.key] = field.number
    first_layer, layers, first_block, count, checksum = numbers.values()
    return Blocks(first_layer, layers, first_block, count, (data,), checksum)


def _tensor_to(part: StateTensor) -> bytes:
    about = pb.StateTensor(path=part.path, dtype=part.dtype, shape=part.shape, offset=part.offset)
    head = about.SerializeToString() + bytes_head(TENSOR_DATA[0], part.bytes)
    return _bulk(TENSOR[0], head, (part.data,), part.checksum)


def _tensor_from(message: memoryview) -> StateTensor:
    path, dtype, shape, offset, data, checksum = "", "", list[int](), 0, NOTHING, 0
    for field in fields(message, "StateTensor"):
        match field.key:
            case (1, 2):
                path = _text(field)
            case (2, 2):
                dtype = _text(field)
            case (3, 2):
                shape += numbers_from(field.data, "StateTensor")
            case (3, 0):
                shape.append(field.number)
            case (4, 0):
                offset = field.number
            case (5, 2):
                data = field.data
            case (6, 1):
                checksum = field.number
    return StateTensor(path, dtype, tuple(shape), offset, data, checksum)


def _text(field: Field) -> str:
    try:
        return str(field.data, "utf-8")
    except UnicodeDecodeError as error:
        raise DataLoss(f"a peer sent a malformed StateTensor: {error}", reason="BAD_STREAM") from error


def _bulk(number: int, head: bytes, data: tuple[memoryview, ...], checksum: int) -> bytes:
    tail = fixed_to(6, checksum)
    size = len(head) + sum(len(piece) for piece in data) + len(tail)
    return b"".join((bytes_head(number, size), head, *data, tail))
