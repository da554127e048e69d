"""Checkpoints in memory: several parts, units that straddle segments, fused experts that stride over units."""

import random
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from blake3 import blake3

from mesh.checkpoint import layout
from mesh.checkpoint.convert import import_origin
from mesh.checkpoint.layout import ALIGNMENT, Manifest, Part, Tensor, Unit, UnitKind
from mesh.checkpoint.origins import open_origin
from tests.services.store.sources import save_llama

EXPERTS, ROWS, COLUMNS = 5, 6, 500


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A manifest, the bytes of its parts, and its small files."""

    manifest: Manifest
    parts: tuple[bytes, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Its name."""
        return self.manifest.digest

    def unit(self, index: int) -> bytes:
        """The bytes of one unit."""
        unit = self.manifest.units[index]
        return self.parts[unit.part][unit.offset : unit.offset + unit.bytes]


def tiny_llama(directory: Path) -> Checkpoint:
    """A real model, imported."""
    return imported(save_llama(directory / "source"), directory)


def imported(source: Path, directory: Path) -> Checkpoint:
    """The checkpoint of a Hugging Face directory."""
    with closing(open_origin(str(source))) as origin:
        manifest = import_origin(origin, directory / "store", on_progress=lambda progress: None)
    home = directory / "store" / manifest.digest
    parts = tuple((home / part.file).read_bytes() for part in manifest.parts)
    return Checkpoint(
        manifest, parts, {file.path: (home / "files" / file.path).read_bytes() for file in manifest.files}
    )


def checkpoint(*part_sizes: tuple[int, ...], seed: int = 1) -> Checkpoint:
    """Per part, units of the given bytes, each one tensor; then, in a part of its own, a layer of fused experts."""
    chance = random.Random(seed)
    expert = 2 * ROWS * COLUMNS  # bytes, in bfloat16
    units: list[Unit] = []
    parts: list[bytes] = []
    for index, sizes in enumerate((*part_sizes, (expert,) * EXPERTS)):
        content = bytearray()
        for size in sizes:
            data = chance.randbytes(size)
            number = len(units)
            fused = index == len(part_sizes)
            place = {"layer": 0, "expert": number} if fused else {}
            kind = UnitKind.EXPERT if fused else UnitKind.EMBEDDING
            units.append(Unit(f"u{number}", kind, index, len(content), size, blake3(data).hexdigest(), **place))
            content += data + bytes(-size % ALIGNMENT)
        parts.append(bytes(content))
    tensors = [Tensor(u.name, "uint8", (u.bytes,), (1,), u.part, u.offset) for u in units[:-EXPERTS]]
    step = -(-expert // ALIGNMENT) * ALIGNMENT // 2
    shape, strides = (EXPERTS, ROWS, COLUMNS), (step, COLUMNS, 1)
    tensors.append(Tensor("experts", "bfloat16", shape, strides, len(part_sizes), 0))
    return Checkpoint(_sealed(units, tensors, parts), tuple(parts))


def _sealed(units: list[Unit], tensors: list[Tensor], parts: list[bytes]) -> Manifest:
    manifest = Manifest(
        digest="",
        source="/made",
        architecture="MadeForCausalLM",
        model_type="made",
        transformers="5.0.0",
        config_digest=blake3(b"").hexdigest(),
        dtype="bfloat16",
        max_context=128,
        parts=tuple(Part(f"part-{index:03}.bin", index, len(content)) for index, content in enumerate(parts)),
        units=tuple(units),
        tensors=tuple(tensors),
        ties=(),
        files=(),
        kv=None,
    )
    sealed = replace(manifest, digest=layout.digest_of(manifest))
    layout.validate(sealed)
    return sealed
