"""Checkpoints made on the spot: valid by every rule of the format, of any size, with several parts, without a model."""

import random
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from blake3 import blake3

from mesh.checkpoint import layout
from mesh.checkpoint.layout import ALIGNMENT, File, Manifest, Part, Tensor, Unit, UnitKind

CONFIG = b'{"model_type": "made"}'
KB = 1 << 10
MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Made:
    """A checkpoint on disk, and what its parts hold."""

    directory: Path
    manifest: Manifest
    parts: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        """Its name."""
        return self.manifest.digest

    @property
    def size_bytes(self) -> int:
        """What it takes in a pool."""
        return layout.total_bytes(self.manifest)

    @property
    def stored_bytes(self) -> int:
        """What it takes on disk, its small files included."""
        return self.size_bytes + len(CONFIG)

    def unit(self, index: int) -> bytes:
        """The bytes of one unit."""
        unit = self.manifest.units[index]
        return self.parts[unit.part][unit.offset : unit.offset + unit.bytes]


def make(root: Path, *, seed: int, part_units: tuple[tuple[int, ...], ...] = ((3 * MB + 5, 100, 2 * MB),)) -> Made:
    """Writes a checkpoint below `root`: per part, units of the given bytes, filled at random from `seed`."""
    chance = random.Random(seed)
    units: list[Unit] = []
    parts: list[bytes] = []
    for index, sizes in enumerate(part_units):
        content = bytearray()
        for size in sizes:
            data = chance.randbytes(size)
            name = f"{index}.{len(units)}"
            units.append(Unit(name, UnitKind.EMBEDDING, index, len(content), size, blake3(data).hexdigest()))
            content += data + bytes(-size % ALIGNMENT)
        parts.append(bytes(content))
    return write(root, manifest_of(units, parts), tuple(parts))


def changed(root: Path, made: Made, *, units: Collection[int], seed: int) -> Made:
    """Writes a new version of a checkpoint: the same but for some units' bytes."""
    chance = random.Random(seed)
    parts = [bytearray(part) for part in made.parts]
    entries = list(made.manifest.units)
    for index in units:
        unit, data = entries[index], chance.randbytes(entries[index].bytes)
        parts[unit.part][unit.offset : unit.offset + unit.bytes] = data
        entries[index] = replace(unit, hash=blake3(data).hexdigest())
    contents = tuple(map(bytes, parts))
    return write(root, manifest_of(entries, list(contents)), contents)


def manifest_of_sizes(part_units: tuple[tuple[int, ...], ...], *, seed: int = 0) -> Manifest:
    """The manifest of a checkpoint whose bytes are nowhere."""
    units: list[Unit] = []
    ends = []
    for index, sizes in enumerate(part_units):
        offset = 0
        for size in sizes:
            name = f"{seed}.{index}.{len(units)}"
            units.append(Unit(name, UnitKind.EMBEDDING, index, offset, size, blake3(name.encode()).hexdigest()))
            offset += size + -size % ALIGNMENT
        ends.append(bytes(offset))
    return manifest_of(units, ends)


def manifest_of(units: list[Unit], parts: list[bytes]) -> Manifest:
    """The manifest of such units and parts."""
    manifest = Manifest(
        digest="",
        source="/made",
        architecture="MadeForCausalLM",
        model_type="made",
        transformers="5.0.0",
        config_digest=blake3(CONFIG).hexdigest(),
        dtype="uint8",
        max_context=128,
        parts=tuple(Part(f"part-{index:03}.bin", index, len(content)) for index, content in enumerate(parts)),
        units=tuple(units),
        tensors=tuple(Tensor(unit.name, "uint8", (unit.bytes,), (1,), unit.part, unit.offset) for unit in units),
        ties=(),
        files=(File("config.json", len(CONFIG), blake3(CONFIG).hexdigest()),),
        kv=None,
    )
    sealed = replace(manifest, digest=layout.digest_of(manifest))
    layout.validate(sealed)
    return sealed


def write(root: Path, manifest: Manifest, parts: tuple[bytes, ...]) -> Made:
    """Puts a checkpoint on disk."""
    directory = root / manifest.digest
    (directory / "files").mkdir(parents=True)
    (directory / "files" / "config.json").write_bytes(CONFIG)
    for part, content in zip(manifest.parts, parts, strict=True):
        (directory / part.file).write_bytes(content)
    (directory / "manifest.json").write_bytes(layout.dump(manifest))
    return Made(directory, manifest, parts)


def flip(path: Path, offset: int) -> None:
    """Changes one bit."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 4]))
