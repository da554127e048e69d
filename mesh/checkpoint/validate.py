"""The rules of the format: ranges inside their part, elements inside units, names safe, the digest right. Pure."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from mesh.checkpoint.codec import digest_of
from mesh.checkpoint.errors import ManifestError
from mesh.checkpoint.records import (
    ALIGNMENT,
    DTYPES,
    MAX_NUMBER,
    TENSOR_ALIGNMENT,
    File,
    KVSpec,
    Manifest,
    Part,
    Tensor,
    Tie,
    Unit,
    UnitKind,
    kv_bytes_per_token,
)
from mesh.facts import RunnerKind

MAX_DIMS = 64  # torch's limit
SLICES_PER_UNIT = 64  # on average, of fused tensors; each costs a look, so that a small manifest cannot take hours
MAX_STEP_BYTES, MAX_PATH_BYTES = 255, 1024  # of a file's path; file systems refuse more
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PART_FILE = re.compile(r"part-[0-9]{3,6}\.bin", re.ASCII)


def validate(manifest: Manifest) -> None:
    """Checks every rule, before any byte is read or memory reserved. Raises ManifestError naming the field."""
    _check_identity(manifest)
    _check_parts(manifest.parts)
    _check_units(manifest.units, manifest.parts)
    _check_base(manifest)
    _check_runner(manifest)
    _check_tensors(manifest)
    _check_ties(manifest.ties, {tensor.name for tensor in manifest.tensors})
    _check_files(manifest.files)
    if manifest.kv is not None:
        _check_kv(manifest.kv)
        _natural("kv", kv_bytes_per_token(manifest))
    if manifest.digest != digest_of(manifest):
        raise ManifestError("digest", "does not match the manifest: it was changed after it was written")


def is_digest(name: str) -> bool:
    """Whether `name` is spelled like a digest, and so may be a checkpoint's directory."""
    return _DIGEST.fullmatch(name) is not None


def _check_identity(manifest: Manifest) -> None:
    for field in ("architecture", "model_type", "transformers"):
        _require(bool(getattr(manifest, field)), field, "is empty")
    _require(is_digest(manifest.digest), "digest", "must be 64 lowercase hex digits")
    _require(is_digest(manifest.config_digest), "config_digest", "must be 64 lowercase hex digits")
    _require(manifest.base is None or is_digest(manifest.base), "base", "must be 64 lowercase hex digits")
    _require(manifest.dtype in DTYPES, "dtype", f"{manifest.dtype!r} is unknown")
    _natural("max_context", manifest.max_context, least=1)


def _check_parts(parts: Sequence[Part]) -> None:
    for index, part in enumerate(parts):
        field = f"parts[{index}]"
        named = _PART_FILE.fullmatch(part.file) is not None
        _require(named, f"{field}.file", f"{part.file!r} must look like part-000.bin")
        _natural(f"{field}.rank", part.rank)
        _natural(f"{field}.bytes", part.bytes)
        _require(part.bytes % ALIGNMENT == 0, f"{field}.bytes", f"must be a multiple of {ALIGNMENT}")
    _natural("parts", sum(part.bytes for part in parts))
    _unique("parts", "file", (part.file for part in parts))
    _unique("parts", "rank", (part.rank for part in parts))


def _check_units(units: Sequence[Unit], parts: Sequence[Part]) -> None:
    ends = [0] * len(parts)
    for index, unit in enumerate(units):
        field = f"units[{index}]"
        _require(bool(unit.name), f"{field}.name", "is empty")
        _index(f"{field}.part", unit.part, parts)
        _natural(f"{field}.offset", unit.offset)
        _natural(f"{field}.bytes", unit.bytes, least=1)
        _require(unit.offset % ALIGNMENT == 0, f"{field}.offset", f"must be a multiple of {ALIGNMENT}")
        in_order = unit.offset >= ends[unit.part]
        _require(in_order, f"{field}.offset", "lies before the end of the unit before it")
        ends[unit.part] = unit.offset + unit.bytes
        inside = ends[unit.part] <= parts[unit.part].bytes
        _require(inside, f"{field}.bytes", "reaches beyond its part")
        _require(is_digest(unit.hash), f"{field}.hash", "must be 64 lowercase hex digits")
        _check_place(unit, field)
    _unique("units", "name", (unit.name for unit in units))


def _check_place(unit: Unit, field: str) -> None:
    """A layer's or adapter's unit says which layer, an expert's also which expert."""
    layered = {UnitKind.LAYER, UnitKind.EXPERT, UnitKind.ADAPTER}
    for name, wanted in (("layer", layered), ("expert", {UnitKind.EXPERT})):
        number: int | None = getattr(unit, name)
        if number is not None:
            _natural(f"{field}.{name}", number)
        else:
            _require(unit.kind not in wanted, f"{field}.{name}", f"is needed for kind {unit.kind}")


def _check_runner(manifest: Manifest) -> None:
    if manifest.runner is not None:
        _require(manifest.runner is not RunnerKind.PACKED, "runner", "must be left out: kv tells as much")
        _require(manifest.base is None, "runner", "must be left out: an adapter runs on its base")
        opaque = manifest.runner is RunnerKind.OPAQUE
        _require(not opaque or manifest.kv is None, "kv", "must be null: the opaque runner has no blocks")


def _check_base(manifest: Manifest) -> None:
    """Units of kind ADAPTER adapt something; what adapts has no layers of its own and no cache."""
    ours = {UnitKind.LAYER, UnitKind.EXPERT} if manifest.base else {UnitKind.ADAPTER}
    for index, unit in enumerate(manifest.units):
        problem = "has a base" if manifest.base else "has no base"
        _require(
            unit.kind not in ours, f"units[{index}].kind", f"must not be {unit.kind} in a checkpoint that {problem}"
        )
    _require(manifest.base is None or manifest.kv is None, "kv", "must be null: an adapter caches nothing")


def _check_tensors(manifest: Manifest) -> None:
    held: list[list[Unit]] = [[] for _ in manifest.parts]
    for unit in manifest.units:
        held[unit.part].append(unit)
    slices, most = 0, SLICES_PER_UNIT * len(manifest.units)
    for index, tensor in enumerate(manifest.tensors):
        field = f"tensors[{index}]"
        _index(f"{field}.part", tensor.part, manifest.parts)
        _check_view(tensor, manifest.parts[tensor.part], field)
        if 0 not in tensor.shape:
            slices += _check_inside(tensor, held[tensor.part], most - slices, field)
    _unique("tensors", "name", (tensor.name for tensor in manifest.tensors))


def _check_view(tensor: Tensor, part: Part, field: str) -> None:
    """Shape, strides and offset by themselves: no torch call on them can fail or reach out of the part."""
    _require(bool(tensor.name), f"{field}.name", "is empty")
    _require(tensor.dtype in DTYPES, f"{field}.dtype", f"{tensor.dtype!r} is unknown")
    _require(len(tensor.shape) <= MAX_DIMS, f"{field}.shape", f"has more than {MAX_DIMS} dimensions")
    _require(len(tensor.strides) == len(tensor.shape), f"{field}.strides", "must be as many as the dimensions")
    _natural(f"{field}.offset", tensor.offset)
    _require(tensor.offset % TENSOR_ALIGNMENT == 0, f"{field}.offset", f"must be a multiple of {TENSOR_ALIGNMENT}")
    empty = 0 in tensor.shape
    elements, most = 1, MAX_NUMBER if empty else part.bytes
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.strides, strict=True)):
        _natural(f"{field}.shape[{dim}]", size)
        _natural(f"{field}.strides[{dim}]", stride)
        _require(stride > 0 or size <= 1 or empty, f"{field}.strides[{dim}]", "is 0, so elements would overlap")
        elements *= max(size, 1)
        _require(elements <= most, f"{field}.shape", "has more elements than its part has bytes")
    fits = tensor.offset + max(_extent(tensor), elements * DTYPES[tensor.dtype]) <= part.bytes
    _require(fits or empty, f"{field}.offset", "the tensor reaches beyond its part")
    _require(tensor.offset <= part.bytes, f"{field}.offset", "lies beyond its part")


def _extent(tensor: Tensor) -> int:
    """Bytes from the first element to the end of the last one."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    return (last + 1) * DTYPES[tensor.dtype]


def _check_inside(tensor: Tensor, units: Sequence[Unit], most: int, field: str) -> int:
    """The tensor lies in one unit, or each slice along its first dimension does: then experts are the slices.

    Returns how many slices that took.
    """
    if _holds(units, tensor.offset, _extent(tensor)):
        return 0
    shape, strides = tensor.shape[1:], tensor.strides[1:]
    spread = bool(tensor.shape) and tensor.shape[0] <= len(units)
    _require(spread, field, "does not lie inside one unit")
    _require(tensor.shape[0] <= most, field, f"takes the slices of all tensors beyond {SLICES_PER_UNIT} a unit")
    row = Tensor(tensor.name, tensor.dtype, shape, strides, tensor.part, tensor.offset)
    row_bytes, step = _extent(row), tensor.strides[0] * DTYPES[tensor.dtype]
    for index in range(tensor.shape[0]):
        inside = _holds(units, tensor.offset + index * step, row_bytes)
        _require(inside, field, f"slice {index} does not lie inside one unit")
    return tensor.shape[0]


def _holds(units: Sequence[Unit], start: int, count: int) -> bool:
    nearest = bisect_right(units, start, key=lambda unit: unit.offset) - 1
    return nearest >= 0 and start + count <= units[nearest].offset + units[nearest].bytes


def _check_ties(ties: Sequence[Tie], tensors: set[str]) -> None:
    for index, tie in enumerate(ties):
        field = f"ties[{index}]"
        _require(bool(tie.name), f"{field}.name", "is empty")
        _require(tie.name not in tensors, f"{field}.name", f"{tie.name!r} is a tensor of its own")
        _require(tie.target in tensors, f"{field}.target", f"{tie.target!r} is no tensor of this checkpoint")
    _unique("ties", "name", (tie.name for tie in ties))


def _check_files(files: Sequence[File]) -> None:
    for index, file in enumerate(files):
        field = f"files[{index}]"
        _require(is_safe_path(file.path), f"{field}.path", f"{file.path!r} must be a plain path below files/")
        longest = max(len(step.encode()) for step in file.path.split("/"))
        short = longest <= MAX_STEP_BYTES and len(file.path.encode()) <= MAX_PATH_BYTES
        _require(short, f"{field}.path", f"{file.path[:40]!r}… is longer than file systems take")
        _natural(f"{field}.bytes", file.bytes)
        _require(is_digest(file.hash), f"{field}.hash", "must be 64 lowercase hex digits")
    _unique("files", "path", (file.path for file in files))
    _check_folders(files)


def _check_folders(files: Sequence[File]) -> None:
    paths = {file.path for file in files}
    for index, file in enumerate(files):
        steps = file.path.split("/")
        folders = {"/".join(steps[:depth]) for depth in range(1, len(steps))}
        _require(not folders & paths, f"files[{index}].path", f"{file.path!r} lies below another file")


def is_safe_path(path: str) -> bool:
    """Whether a relative path stays where it is joined: no root, no '..', no backslash, NUL, or odd spelling."""
    if not path or "\\" in path or "\0" in path:
        return False
    return all(step not in {"", ".", ".."} for step in path.split("/"))


def _check_kv(kv: KVSpec) -> None:
    _require(kv.dtype in DTYPES, "kv.dtype", f"{kv.dtype!r} is unknown")
    _require(bool(kv.layers), "kv.layers", "is empty; a model without a KV cache has kv null")
    for index, layer in enumerate(kv.layers):
        for name in ("heads", "k_dim", "v_heads", "v_dim"):
            _natural(f"kv.layers[{index}].{name}", getattr(layer, name), least=1)


def _require(true: bool, field: str, problem: str) -> None:
    if not true:
        raise ManifestError(field, problem)


def _natural(field: str, number: int, least: int = 0) -> None:
    if not least <= number <= MAX_NUMBER:
        raise ManifestError(field, f"{number} is not within {least} and 2**63 - 1")


def _index(field: str, number: int, table: Sequence[object]) -> None:
    if not 0 <= number < len(table):
        raise ManifestError(field, f"{number} names no entry of a table of {len(table)}")


def _unique(table: str, field: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for index, value in enumerate(values):
        if value in seen:
            raise ManifestError(f"{table}[{index}].{field}", f"{value!r} appears twice")
        seen.add(value)
