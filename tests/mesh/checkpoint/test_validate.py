"""Each rule of the format, by the damage that it stops."""

from dataclasses import replace
from typing import Any

import pytest

from mesh.checkpoint import layout
from mesh.checkpoint.errors import ManifestError
from mesh.checkpoint.layout import File, KVSpec, LayerKV, Manifest, Part, Tensor, Tie, UnitKind
from mesh.checkpoint.validate import is_safe_path
from mesh.facts import RunnerKind

from .samples import manifest, sealed

SAMPLE = manifest()
MAX = 2**63 - 1


def test_a_sound_manifest_passes() -> None:
    layout.validate(SAMPLE)


def test_a_manifest_without_a_tensor_passes() -> None:
    layout.validate(sealed(replace(SAMPLE, parts=(), units=(), tensors=(), ties=(), files=(), kv=None)))


def test_a_changed_manifest_does_not_match_its_digest() -> None:
    with pytest.raises(ManifestError, match="digest: does not match"):
        layout.validate(replace(SAMPLE, max_context=129))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"architecture": ""}, "architecture"),
        ({"config_digest": "0" * 63}, "config_digest"),
        ({"config_digest": "0" * 63 + "G"}, "config_digest"),
        ({"dtype": "float33"}, "dtype"),
        ({"max_context": 0}, "max_context"),
        ({"max_context": 2**63}, "max_context"),
        ({"parts": (Part("../part-000.bin", 0, 16384),)}, "parts[0].file"),
        ({"parts": (Part("manifest.json", 0, 16384),)}, "parts[0].file"),
        ({"parts": (Part("part-000.bin", -1, 16384),)}, "parts[0].rank"),
        ({"parts": (Part("part-000.bin", 0, 16385),)}, "parts[0].bytes"),
        ({"parts": (Part("part-000.bin", 0, -4096),)}, "parts[0].bytes"),
        ({"parts": (Part("part-000.bin", 0, 2**63),)}, "parts[0].bytes"),
        ({"parts": (Part("part-000.bin", 0, 16384), Part("part-000.bin", 1, 0))}, "parts[1].file"),
        ({"parts": (Part("part-000.bin", 0, 16384), Part("part-001.bin", 0, 0))}, "parts[1].rank"),
        ({"parts": tuple(Part(f"part-00{n}.bin", n, MAX - 4095) for n in range(2))}, "parts"),
        ({"ties": (Tie("bias", "embed"),)}, "ties[0].name"),
        ({"ties": (Tie("", "embed"),)}, "ties[0].name"),
        ({"ties": (Tie("head", "lost"),)}, "ties[0].target"),
        ({"ties": (Tie("head", "embed"), Tie("head", "bias"))}, "ties[1].name"),
        ({"ties": (Tie("head", "embed"), Tie("other", "head"))}, "ties[1].target"),
        ({"files": (File("a", 1, "0" * 64), File("a", 1, "0" * 64))}, "files[1].path"),
        ({"files": (File("a", -1, "0" * 64),)}, "files[0].bytes"),
        ({"files": (File("a", 1, "x"),)}, "files[0].hash"),
        ({"files": (File("x" * 256, 1, "0" * 64),)}, "files[0].path"),
        ({"files": (File("é" * 128, 1, "0" * 64),)}, "files[0].path"),
        ({"files": (File("/".join(["abc"] * 257), 1, "0" * 64),)}, "files[0].path"),
        ({"files": (File("a/b/c", 1, "0" * 64), File("a/b", 1, "0" * 64))}, "files[0].path"),
        ({"kv": KVSpec((), "bfloat16")}, "kv.layers"),
        ({"kv": KVSpec((LayerKV(1, 1, 1, 1),), "blob")}, "kv.dtype"),
        ({"kv": KVSpec((LayerKV(1, 0, 1, 1),), "bfloat16")}, "kv.layers[0].k_dim"),
        ({"kv": KVSpec((LayerKV(1, 2**64, 1, 1),), "bfloat16")}, "kv.layers[0].k_dim"),
        ({"kv": KVSpec((LayerKV(2**40, 2**40, 1, 1),), "bfloat16")}, "kv"),
    ],
)
def test_a_bad_value_is_named(changes: dict[str, Any], field: str) -> None:
    _refuses(replace(SAMPLE, **changes), field)


@pytest.mark.parametrize(
    ("index", "changes", "field"),
    [
        (0, {"name": ""}, "name"),
        (1, {"name": "embedding"}, "name"),
        (0, {"part": 1}, "part"),
        (0, {"part": -1}, "part"),
        (1, {"offset": 8191}, "offset"),
        (1, {"offset": -4096}, "offset"),
        (1, {"offset": 4096}, "offset"),  # inside the unit before it
        (2, {"offset": 8192}, "offset"),  # upon the unit before it
        (2, {"offset": 0}, "offset"),  # out of order
        (2, {"bytes": 4097}, "bytes"),
        (2, {"bytes": MAX}, "bytes"),
        (2, {"bytes": 2**63}, "bytes"),
        (2, {"bytes": 0}, "bytes"),
        (2, {"offset": MAX - 4095}, "bytes"),  # offset + bytes overflows 64 bits
        (2, {"hash": "0" * 63}, "hash"),
        (2, {"hash": "0" * 63 + "\n"}, "hash"),
        (2, {"expert": None}, "expert"),
        (2, {"layer": None}, "layer"),
        (2, {"layer": -1}, "layer"),
        (2, {"kind": UnitKind.LAYER, "layer": None}, "layer"),
    ],
)
def test_a_bad_unit_is_named(index: int, changes: dict[str, Any], field: str) -> None:
    units = list(SAMPLE.units)
    units[index] = replace(units[index], **changes)
    _refuses(replace(SAMPLE, units=tuple(units)), f"units[{index}].{field}")


def _adapter() -> Manifest:
    """Of one layer, with a trained embedding and head."""
    kinds = (UnitKind.EMBEDDING, UnitKind.ADAPTER, UnitKind.HEAD)
    units = tuple(
        replace(unit, kind=kind, layer=0 if kind is UnitKind.ADAPTER else None, expert=None)
        for unit, kind in zip(SAMPLE.units, kinds, strict=True)
    )
    return sealed(replace(SAMPLE, base="1" * 64, kv=None, units=units))


def test_an_adapter_has_units_of_its_own_kind_and_no_cache() -> None:
    layout.validate(_adapter())
    _refuses(replace(_adapter(), base=None), "units[1].kind")
    _refuses(replace(_adapter(), base="1" * 63), "base")
    _refuses(replace(SAMPLE, base="1" * 64), "units[1].kind")
    _refuses(replace(_adapter(), kv=SAMPLE.kv), "kv")
    unit = replace(_adapter().units[1], layer=None)
    _refuses(replace(_adapter(), units=(unit,), tensors=(), ties=()), "units[0].layer")


def test_a_runner_is_told_only_where_it_is_not_the_packed_one() -> None:
    opaque = sealed(replace(SAMPLE, kv=None, runner=RunnerKind.OPAQUE))
    layout.validate(opaque)
    assert layout.parse(layout.dump(opaque)) == opaque
    assert [layout.runner_of(one) for one in (SAMPLE, opaque)] == [RunnerKind.PACKED, RunnerKind.OPAQUE]
    assert layout.runner_of(replace(SAMPLE, kv=None)) is None
    _refuses(replace(SAMPLE, runner=RunnerKind.PACKED), "runner")
    _refuses(replace(SAMPLE, runner=RunnerKind.OPAQUE), "kv")
    _refuses(replace(_adapter(), runner=RunnerKind.OPAQUE), "runner")


def test_a_small_manifest_of_many_slices_is_refused_and_not_counted_through() -> None:
    """Each tensor has a slice in every unit, upon each other: the work would grow as the square of the manifest."""
    slices = tuple(Tensor(f"t{n}", "bool", (2,), (4096,), 0, 8192) for n in range(97))
    allowed = replace(SAMPLE, tensors=(*SAMPLE.tensors, *slices[:95]))
    layout.validate(sealed(allowed))  # with the two slices of the sample, 64 a unit
    _refuses(replace(allowed, tensors=(*SAMPLE.tensors, *slices)), "tensors[98]")


@pytest.mark.parametrize(
    ("tensor", "field"),
    [
        (Tensor("", "float32", (8,), (1,), 0, 0), ".name"),
        (Tensor("bias", "float32", (8,), (1,), 0, 0), ".name"),
        (Tensor("t", "float31", (8,), (1,), 0, 0), ".dtype"),
        (Tensor("t", "float32", (8,), (1,), 3, 0), ".part"),
        (Tensor("t", "float32", (8,), (1, 1), 0, 0), ".strides"),
        (Tensor("t", "float32", (1,) * 65, (1,) * 65, 0, 0), ".shape"),
        (Tensor("t", "float32", (-8,), (1,), 0, 0), ".shape[0]"),
        (Tensor("t", "float32", (2**63,), (1,), 0, 0), ".shape[0]"),
        (Tensor("t", "float32", (2**62, 4), (4, 1), 0, 0), ".shape"),
        (Tensor("t", "float32", (0, 2**62, 2), (1, 1, 1), 0, 0), ".shape"),
        (Tensor("t", "float32", (8,), (-1,), 0, 0), ".strides[0]"),
        (Tensor("t", "float32", (8,), (2**63,), 0, 0), ".strides[0]"),
        (Tensor("t", "float32", (8,), (0,), 0, 0), ".strides[0]"),
        (Tensor("t", "float32", (8,), (1,), 0, 4), ".offset"),
        (Tensor("t", "float32", (8,), (1,), 0, -64), ".offset"),
        (Tensor("t", "float32", (8,), (1,), 0, 2**63), ".offset"),
        (Tensor("t", "float32", (8,), (1,), 0, MAX - 63), ".offset"),
        (Tensor("t", "float32", (4, 1024), (1, 1), 0, 8192), ".offset"),  # elements upon each other
        (Tensor("t", "float32", (2, 8), (MAX, 1), 0, 0), ".offset"),
        (Tensor("t", "float32", (0,), (1,), 0, 16448), ".offset"),
        (Tensor("t", "float32", (2048,), (1,), 0, 0), ""),  # over the end of its unit
        (Tensor("t", "float32", (8,), (1,), 0, 8128), ""),  # between two units
        (Tensor("t", "float32", (2, 8, 3), (1024, 3, 9), 0, 8192), ""),  # rows longer than the experts
        (Tensor("t", "float32", (2, 8), (1024, 1), 0, 4224), ""),  # first slice in the padding
        (Tensor("t", "bool", (200,), (64,), 0, 0), ""),  # more slices than units
    ],
)
def test_a_bad_tensor_is_named(tensor: Tensor, field: str) -> None:
    _refuses(replace(SAMPLE, tensors=(*SAMPLE.tensors, tensor)), f"tensors[3]{field}")


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("scalar", "float32", (), (), 0, 0),
        Tensor("empty", "float32", (0, 4), (4, 1), 0, 0),
        Tensor("transposed", "float32", (128, 8), (1, 128), 0, 0),
        Tensor("last element", "float32", (16,), (1,), 0, 4096),
        Tensor("one of a size-1 dimension", "float32", (1, 8), (MAX, 1), 0, 0),
        Tensor("every second expert byte", "uint8", (2, 48), (4096, 2), 0, 8192),
    ],
)
def test_every_view_inside_its_units_passes(tensor: Tensor) -> None:
    layout.validate(sealed(replace(SAMPLE, tensors=(*SAMPLE.tensors, tensor))))


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a/./b", "a\\b", "a\0b", "..", "\\\\host\\x"]
)
def test_a_path_that_could_leave_its_directory_is_refused(path: str) -> None:
    assert not is_safe_path(path)
    _refuses(replace(SAMPLE, files=(File(path, 1, "0" * 64),)), "files[0].path")


def test_plain_paths_are_safe() -> None:
    assert is_safe_path("config.json")
    assert is_safe_path("a/b..c/.d")


def _refuses(bad: Manifest, field: str) -> None:
    with pytest.raises(ManifestError) as caught:
        layout.validate(sealed(bad))
    assert caught.value.field == field, caught.value
