"""The records of manifest.json, format version 1, pure: fields, dtypes and sizes. Rules between them: validate.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from mesh.facts import RunnerKind

FORMAT = "whimbrel-checkpoint"
VERSION = 1
ALIGNMENT = 4096  # bytes; every unit starts on one, and a part's size is a multiple of it
TENSOR_ALIGNMENT = 64  # bytes; a cache line, and what vectorized kernels like
MAX_NUMBER = 2**63 - 1
AS_STORED = "as-stored"  # in place of a transformers version: the tensors are named and shaped as in their source

DTYPES: Mapping[str, int] = MappingProxyType(
    {
        "bool": 1, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8,
        "int8": 1, "int16": 2, "int32": 4, "int64": 8,
        "float8_e4m3fn": 1, "float8_e4m3fnuz": 1, "float8_e5m2": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
        "float4_e2m1fn_x2": 1,
        "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
        "complex32": 4, "complex64": 8, "complex128": 16,
    }
)  # fmt: skip
"""Bytes of one element, by torch's name without the prefix."""


class UnitKind(StrEnum):
    """What a unit holds."""

    EMBEDDING = "embedding"
    LAYER = "layer"
    EXPERT = "expert"
    HEAD = "head"
    ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class Part:
    """One file of raw bytes; a part belongs to one tensor-parallel rank."""

    file: str
    rank: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest loadable byte range. `bytes` is unpadded; `offset` is a multiple of ALIGNMENT within the part."""

    name: str
    kind: UnitKind
    part: int
    offset: int
    bytes: int
    hash: str  # BLAKE3 of the unit's bytes, hex
    layer: int | None = None
    expert: int | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view: address = base of the part + offset. `strides` count elements; an expert dimension strides over units."""

    name: str
    dtype: str  # torch's name without the prefix: "bfloat16"
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    part: int
    offset: int  # bytes


@dataclass(frozen=True, slots=True)
class Tie:
    """`name` shares the storage of `target`, a tensor of the table."""

    name: str
    target: str


@dataclass(frozen=True, slots=True)
class LayerKV:
    """The key and value shapes that one attention layer caches per token."""

    heads: int
    k_dim: int
    v_heads: int
    v_dim: int


@dataclass(frozen=True, slots=True)
class KVSpec:
    """The KV cache of a model: its layers, and the element type."""

    layers: tuple[LayerKV, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class File:
    """A small file that travels along: config.json, tokenizer.json, a licence."""

    path: str  # relative, below files/
    bytes: int
    hash: str  # BLAKE3, hex


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint, described. `digest` covers everything but `source` and itself."""

    digest: str
    source: str
    architecture: str  # class name, such as LlamaForCausalLM
    model_type: str
    transformers: str  # version whose state_dict() the tensors are named and shaped by, or AS_STORED
    config_digest: str
    dtype: str  # of most bytes
    max_context: int  # tokens
    parts: tuple[Part, ...]
    units: tuple[Unit, ...]
    tensors: tuple[Tensor, ...]
    ties: tuple[Tie, ...]
    files: tuple[File, ...]
    kv: KVSpec | None  # None: the packed engine cannot run this architecture
    base: str | None = None  # of an adapter: the digest of the checkpoint that it adapts
    runner: RunnerKind | None = None  # what runs it, unless that is the packed engine


def total_bytes(manifest: Manifest) -> int:
    """Bytes of all parts, padding included: what a checkpoint takes in a pool."""
    return sum(part.bytes for part in manifest.parts)


def runner_of(manifest: Manifest) -> RunnerKind | None:
    """What runs the checkpoint; None if nothing does, by itself."""
    return manifest.runner or (RunnerKind.PACKED if manifest.kv else None)


def kv_bytes_per_token(manifest: Manifest) -> int:
    """Bytes of KV cache that one token of context takes; 0 when the packed engine cannot run it."""
    if manifest.kv is None:
        return 0
    elements = sum(layer.heads * layer.k_dim + layer.v_heads * layer.v_dim for layer in manifest.kv.layers)
    return elements * DTYPES[manifest.kv.dtype]


def align_up(offset: int, alignment: int) -> int:
    """The smallest multiple of `alignment` that is not below `offset`."""
    return -(-offset // alignment) * alignment
