"""The checkpoint format, version 1: one door to its records, their JSON and their rules. Pure."""

from mesh.checkpoint.codec import digest_of, dump, parse
from mesh.checkpoint.records import (
    ALIGNMENT,
    DTYPES,
    FORMAT,
    TENSOR_ALIGNMENT,
    VERSION,
    File,
    KVSpec,
    LayerKV,
    Manifest,
    Part,
    Tensor,
    Tie,
    Unit,
    UnitKind,
    kv_bytes_per_token,
    runner_of,
    total_bytes,
)
from mesh.checkpoint.validate import is_digest, validate

__all__ = [
    "ALIGNMENT",
    "DTYPES",
    "FORMAT",
    "TENSOR_ALIGNMENT",
    "VERSION",
    "File",
    "KVSpec",
    "LayerKV",
    "Manifest",
    "Part",
    "Tensor",
    "Tie",
    "Unit",
    "UnitKind",
    "digest_of",
    "dump",
    "is_digest",
    "kv_bytes_per_token",
    "parse",
    "runner_of",
    "total_bytes",
    "validate",
]
