"""Whether stored bytes are what the manifest says: sizes on opening, hashes of a unit, or of everything."""

from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from mesh.checkpoint.codec import parse
from mesh.checkpoint.errors import CorruptUnit, Damaged
from mesh.checkpoint.records import Manifest, Unit
from mesh.checkpoint.validate import is_digest, validate

MANIFEST = "manifest.json"
FILES = "files"
MAX_MANIFEST_BYTES = 64 << 20  # 15 000 experts take 4 MB
CHUNK_BYTES = 8 << 20


def load_manifest(directory: Path) -> Manifest:
    """Reads and validates manifest.json and compares the files' sizes; reads no weights.

    Raises Damaged if a file is missing or of another size, ManifestError if the manifest breaks a rule.
    """
    path = directory / MANIFEST
    if _size(path) > MAX_MANIFEST_BYTES:
        raise Damaged(f"{path} has {_size(path)} bytes; a manifest has at most {MAX_MANIFEST_BYTES}")
    manifest = parse(path.read_bytes())
    validate(manifest)
    if is_digest(directory.name) and directory.name != manifest.digest:
        raise Damaged(f"{directory} holds checkpoint {manifest.digest}; it was renamed or mixed up")
    sizes = {directory / part.file: part.bytes for part in manifest.parts}
    sizes |= {directory / FILES / file.path: file.bytes for file in manifest.files}
    for path, size in sizes.items():
        if _size(path) != size:
            raise Damaged(f"{path} has {_size(path)} bytes, not {size}; import or fetch the checkpoint again")
    return manifest


def verify_checkpoint(directory: Path) -> Manifest:
    """Reads everything. Raises CorruptUnit for the first unit that differs, Damaged for padding or a small file."""
    manifest = load_manifest(directory)
    for index, part in enumerate(manifest.parts):
        with (directory / part.file).open("rb") as file:
            for unit in manifest.units:
                if unit.part == index:
                    _check_zeros(file, unit.offset - file.tell())
                    _check_hash(manifest, unit, hash_range(file, unit.bytes))
            _check_zeros(file, part.bytes - file.tell())
    for entry in manifest.files:
        path = directory / FILES / entry.path
        if unit_hash(path.read_bytes()) != entry.hash:
            raise Damaged(f"{path} has changed since it was imported; import or fetch the checkpoint again")
    return manifest


def check_unit(manifest: Manifest, index: int, data: memoryview) -> None:
    """Raises CorruptUnit unless `data` is, byte for byte, unit `index` without padding."""
    unit = manifest.units[index]
    if data.nbytes != unit.bytes:
        raise CorruptUnit(manifest.digest, unit.name, f"{data.nbytes} bytes came, not {unit.bytes}")
    _check_hash(manifest, unit, unit_hash(data))


def unit_hash(data: bytes | bytearray | memoryview) -> str:
    """BLAKE3, hex."""
    return blake3(data).hexdigest()


def _check_hash(manifest: Manifest, unit: Unit, found: str) -> None:
    if found != unit.hash:
        raise CorruptUnit(manifest.digest, unit.name, f"its bytes hash to {found[:16]}…, not {unit.hash[:16]}…")


def hash_range(file: BinaryIO, count: int) -> str:
    """BLAKE3, hex, of the next `count` bytes."""
    hasher = blake3()
    while count and (data := file.read(min(count, CHUNK_BYTES))):
        hasher.update(data)
        count -= len(data)
    return hasher.hexdigest()


def _check_zeros(file: BinaryIO, count: int) -> None:
    """Padding belongs to no unit, so no hash covers it; it must be what was written."""
    if any(file.read(count)):
        raise Damaged(f"{file.name} has bytes other than zero between its units; import or fetch the checkpoint again")


def _size(path: Path) -> int:
    """Bytes of a regular file."""
    if not path.is_file():
        raise Damaged(f"{path} is missing; import or fetch the checkpoint again")
    return path.stat().st_size
