"""safetensors headers, read and checked by ourselves before any tensor is. No tensor bytes are read here."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

from mesh.checkpoint import strict_json
from mesh.checkpoint.errors import BadShard
from mesh.checkpoint.origin import Origin, place_of, read_range
from mesh.checkpoint.records import DTYPES

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
FIRST_READ_BYTES = 64 << 10  # holds most headers, so that a distant shard costs one round trip

SAFETENSORS_DTYPES: Mapping[str, str] = MappingProxyType(
    {
        "BOOL": "bool", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
        "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
        "F8_E4M3": "float8_e4m3fn", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2": "float8_e5m2",
        "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
        "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64",
        "F4": "float4_e2m1fn_x2",
    }
)  # fmt: skip
"""torch's name for each dtype of the format that torch has; F6 has none."""
PACKED: Mapping[str, int] = MappingProxyType({"F4": 2})
"""How many numbers of the format torch counts as one element; they lie side by side in the last dimension."""
MAX_NAME_CHARS = 1024


@dataclass(frozen=True, slots=True)
class ShardTensor:
    """One tensor of a shard; `offset` counts bytes from the start of the file."""

    name: str
    dtype: str  # torch's name
    shape: tuple[int, ...]
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Shard:
    """One safetensors file whose header has been checked against its size."""

    file: str  # its name in the origin
    tensors: tuple[ShardTensor, ...]


def read_shard(origin: Origin, file: str) -> Shard:
    """The shard of that name. Raises BadShard unless its tensors cover the file exactly, without hole or overlap."""
    path = place_of(origin, file)
    size = origin.size(file)
    if size is None:
        raise _bad(path, "is missing")
    start = read_range(origin, file, 0, min(size, FIRST_READ_BYTES))
    length = int.from_bytes(start[:8], "little")
    if size < 8 or length > size - 8:
        raise _bad(path, f"is truncated: {size} bytes cannot hold its header")
    if length > MAX_HEADER_BYTES:
        raise _bad(path, f"has a header of {length} bytes; the format allows {MAX_HEADER_BYTES}")
    rest = read_range(origin, file, len(start), max(8 + length - len(start), 0))
    header = _parse(path, start[8 : 8 + length] + rest)
    tensors = [_tensor(path, name, entry, 8 + length) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.bytes))
    _check_cover(path, tensors, 8 + length, size)
    return Shard(file, tuple(tensors))


def _parse(path: str, data: bytes) -> dict[str, object]:
    try:
        header = strict_json.loads(data)
    except ValueError as error:
        raise _bad(path, f"has a header that is not JSON as the format has it: {error}") from error
    if not isinstance(header, dict):
        raise _bad(path, "has a header that is no JSON object")
    header.pop("__metadata__", None)
    return header


def _tensor(path: str, name: str, entry: object, data_start: int) -> ShardTensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _bad(path, f"describes tensor {name!r} by something else than dtype, shape and data_offsets")
    dtype = SAFETENSORS_DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise BadShard(
            f"{path} holds tensor {name!r} of dtype {entry['dtype']!r}, which is unknown; "
            f"store it as one of {', '.join(SAFETENSORS_DTYPES)}"
        )
    _check_name(path, name)
    shape, offsets = _naturals(entry["shape"]), _naturals(entry["data_offsets"])
    if shape is None or offsets is None or len(offsets) != 2:
        raise _bad(path, f"gives tensor {name!r} a shape or range that is not of natural numbers")
    shape = _as_torch_counts(path, name, shape, PACKED.get(entry["dtype"], 1))
    start, end = offsets
    if end - start != prod(shape) * DTYPES[dtype]:
        raise _bad(path, f"gives tensor {name!r} {end - start} bytes; its shape {list(shape)} needs another number")
    if prod(max(size, 1) for size in shape) >= 2**63:
        raise _bad(path, f"gives tensor {name!r} the shape {list(shape)}, which torch cannot count")
    return ShardTensor(name, dtype, shape, data_start + start, end - start)


def _check_name(path: str, name: str) -> None:
    """A manifest must be able to spell it."""
    if not name or len(name) > MAX_NAME_CHARS:
        raise _bad(
            path, f"has a tensor name of {len(name)} characters, {name[:40]!r}; 1 to {MAX_NAME_CHARS} can be kept"
        )
    if not name.isascii() and any("\ud800" <= char <= "\udfff" for char in name):
        raise _bad(path, f"has a tensor name with half of a surrogate pair, {name!r}")


def _as_torch_counts(path: str, name: str, shape: tuple[int, ...], packed: int) -> tuple[int, ...]:
    """The shape in elements of torch's dtype. Raises BadShard if it has no tensor of that shape."""
    if packed == 1:
        return shape
    if not shape or shape[-1] % packed:
        raise _bad(path, f"packs tensor {name!r} of shape {list(shape)} by {packed}, which its last dimension is not")
    return (*shape[:-1], shape[-1] // packed)


def _naturals(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or len(value) > 64:
        return None
    return tuple(value) if all(type(n) is int and 0 <= n < 2**63 for n in value) else None


def _check_cover(path: str, tensors: list[ShardTensor], start: int, size: int) -> None:
    end = start
    for tensor in tensors:
        if tensor.offset != end:
            wrong = "overlaps the one before it" if tensor.offset < end else "leaves a hole before it"
            raise _bad(path, f"has a range for tensor {tensor.name!r} that {wrong}")
        end += tensor.bytes
    if end > size:
        raise _bad(path, f"is truncated: its header promises {end} bytes, the file has {size}")
    if end < size:
        raise _bad(path, f"has {size - end} bytes that belong to no tensor")


def _bad(path: str, problem: str) -> BadShard:
    return BadShard(f"{path} {problem}; download it again")
