"""Damage on our own disk is found: on opening when sizes tell, by hash otherwise."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.checkpoint import layout
from mesh.checkpoint.convert import import_directory
from mesh.checkpoint.errors import CorruptUnit, Damaged, ManifestError
from mesh.checkpoint.layout import Manifest
from mesh.checkpoint.verify import (
    MAX_MANIFEST_BYTES,
    check_unit,
    load_manifest,
    unit_hash,
    verify_checkpoint,
)

from .samples import Spec, sealed


@pytest.fixture
def stored(saved: Callable[[Spec], Path], root: Path) -> Path:
    """A checkpoint's directory."""
    return root / import_directory(saved(Spec("mixtral")), root, on_progress=lambda _progress: None).digest


def _flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def test_a_sound_checkpoint_passes(stored: Path) -> None:
    assert verify_checkpoint(stored) == load_manifest(stored)


@pytest.mark.parametrize("unit", ["embedding", "layers.0", "layers.1.experts.3", "head"])
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_flipped_bit_names_its_unit(stored: Path, unit: str, place: str) -> None:
    manifest = load_manifest(stored)
    hit = next(u for u in manifest.units if u.name == unit)
    _flip(stored / "part-000.bin", hit.offset + (hit.bytes - 1 if place == "last" else 0))
    load_manifest(stored)  # sizes cannot tell
    with pytest.raises(CorruptUnit, match=unit) as caught:
        verify_checkpoint(stored)
    assert (caught.value.digest, caught.value.unit) == (manifest.digest, unit)


@pytest.mark.parametrize("after", ["layers.0", "head"])
def test_a_flipped_bit_in_the_padding_is_found_too(stored: Path, after: str) -> None:
    unit = next(u for u in load_manifest(stored).units if u.name == after)
    (stored / "part-000.bin").write_bytes(_with_padding_hit(stored, unit.offset + unit.bytes))
    with pytest.raises(Damaged, match="between its units"):
        verify_checkpoint(stored)


def _with_padding_hit(stored: Path, end: int) -> bytes:
    data = bytearray((stored / "part-000.bin").read_bytes())
    padding = -end % layout.ALIGNMENT
    assert padding, "this unit ends on a page: choose sizes that do not"
    data[end + padding - 1] = 1
    return bytes(data)


@pytest.mark.parametrize("change", [-1, 1, -4096, 4096])
def test_a_part_of_another_size_is_found_on_opening(stored: Path, change: int) -> None:
    part = stored / "part-000.bin"
    os.truncate(part, part.stat().st_size + change)
    with pytest.raises(Damaged, match=r"part-000\.bin has"):
        load_manifest(stored)


@pytest.mark.parametrize("name", ["manifest.json", "part-000.bin", "files/config.json"])
def test_a_missing_file_is_found_on_opening(stored: Path, name: str) -> None:
    (stored / name).unlink()
    with pytest.raises(Damaged, match="is missing"):
        load_manifest(stored)


def test_a_changed_small_file_is_found(stored: Path) -> None:
    _flip(stored / "files" / "config.json", 10)
    load_manifest(stored)
    with pytest.raises(Damaged, match=r"config\.json has changed"):
        verify_checkpoint(stored)


def test_a_manifest_under_another_name_is_found(stored: Path) -> None:
    other = stored.rename(stored.parent / ("f" * 64))
    with pytest.raises(Damaged, match="renamed or mixed up"):
        load_manifest(other)
    load_manifest(other.rename(stored.parent / "copy-for-inspection"))


def test_a_changed_manifest_is_found(stored: Path) -> None:
    path = stored / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"max_context":128', b'"max_context":256'))
    with pytest.raises(ManifestError, match="digest"):
        load_manifest(stored)


def test_a_manifest_that_points_outside_is_refused(stored: Path) -> None:
    (stored.parent / "passwd").write_bytes(bytes(4096))
    manifest = load_manifest(stored)
    parts = (replace(manifest.parts[0], file="../passwd"),)
    (stored / "manifest.json").write_bytes(layout.dump(sealed(replace(manifest, parts=parts))))
    with pytest.raises(ManifestError, match=r"parts\[0\]\.file"):
        load_manifest(stored)


def test_a_huge_manifest_is_not_read(stored: Path) -> None:
    os.truncate(stored / "manifest.json", MAX_MANIFEST_BYTES + 1)
    with pytest.raises(Damaged, match="at most"):
        load_manifest(stored)


def _unit_bytes(stored: Path, manifest: Manifest, index: int) -> bytearray:
    unit = manifest.units[index]
    return bytearray((stored / "part-000.bin").read_bytes()[unit.offset : unit.offset + unit.bytes])


def test_a_unit_is_checked_wherever_its_bytes_lie(stored: Path) -> None:
    manifest = load_manifest(stored)
    for index, unit in enumerate(manifest.units):
        data = _unit_bytes(stored, manifest, index)
        assert unit_hash(data) == unit.hash
        check_unit(manifest, index, memoryview(data))
        data[len(data) // 2] ^= 0x80
        with pytest.raises(CorruptUnit, match=unit.name):
            check_unit(manifest, index, memoryview(data))


@pytest.mark.parametrize("change", [-1, 1])
def test_a_unit_of_another_length_is_corrupt(stored: Path, change: int) -> None:
    manifest = load_manifest(stored)
    data = _unit_bytes(stored, manifest, 1) + b"\0"
    with pytest.raises(CorruptUnit, match="bytes came"):
        check_unit(manifest, 1, memoryview(data)[: manifest.units[1].bytes + change])
