"""The manifest: what is written is read back, and nothing else is taken for one."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.checkpoint import layout
from mesh.checkpoint.convert import import_directory
from mesh.checkpoint.errors import ManifestError
from mesh.checkpoint.layout import LayerKV, Manifest
from tests.fuzz.manifests import bend, check, sealed_json

from .samples import Spec, manifest

SAMPLE = manifest()
FIELDS: dict[str, Any] = json.loads(layout.dump(SAMPLE))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def test_a_manifest_survives_its_json() -> None:
    assert layout.parse(layout.dump(SAMPLE)) == SAMPLE


def test_the_json_is_canonical() -> None:
    data = layout.dump(SAMPLE)
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode()
    assert json.loads(data)["format"] == "whimbrel-checkpoint"
    assert json.loads(data)["version"] == 1


def test_the_digest_covers_everything_but_the_source_and_itself() -> None:
    assert replace(SAMPLE, source="elsewhere", digest="").digest == ""
    assert layout.digest_of(replace(SAMPLE, source="elsewhere", digest="")) == SAMPLE.digest
    covered = {name: value for name, value in FIELDS.items() if name not in {"source", "digest"}}
    data = json.dumps(covered, sort_keys=True, separators=(",", ":")).encode()
    assert blake3(data).hexdigest() == SAMPLE.digest
    for change in (
        {"transformers": "5.0.1"},
        {"max_context": 129},
        {"kv": None},
        {"ties": ()},
        {"files": ()},
        {"units": SAMPLE.units[:1], "tensors": SAMPLE.tensors[:2]},
    ):
        assert layout.digest_of(replace(SAMPLE, **change)) != SAMPLE.digest


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_a_missing_field_is_named(name: str) -> None:
    fields = {key: value for key, value in FIELDS.items() if key != name}
    with pytest.raises(ManifestError, match=name) as caught:
        layout.parse(json.dumps(fields).encode())
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("version",), 2, "version"),
        (("version",), True, "version"),
        (("version",), 1.0, "version"),
        (("format",), "safetensors", "format"),
        (("extra",), 1, "extra"),
        (("max_context",), "128", "max_context"),
        (("max_context",), True, "max_context"),
        (("max_context",), 128.0, "max_context"),
        (("source",), None, "source"),
        (("source",), "\ud800", "source"),
        (("units",), {}, "units"),
        (("units", 1, "kind"), "lair", "units[1].kind"),
        (("units", 1, "kind"), ["layer"], "units[1].kind"),
        (("units", 2, "offset"), None, "units[2].offset"),
        (("units", 0, "colour"), "red", "units[0].colour"),
        (("tensors", 0, "shape", 1), "128", "tensors[0].shape[1]"),
        (("tensors", 0), 7, "tensors[0]"),
        (("kv", "layers", 0, "heads"), 0.5, "kv.layers[0].heads"),
        (("kv",), [], "kv"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(path: tuple[str | int, ...], value: object, field: str) -> None:
    with pytest.raises(ManifestError) as caught:
        layout.parse(json.dumps(_changed(path, value)).encode())
    assert caught.value.field == field


def test_a_key_that_appears_twice_is_refused() -> None:
    data = layout.dump(SAMPLE).replace(b'"dtype":"float32","files"', b'"dtype":"float32","dtype":"float16","files"')
    with pytest.raises(ManifestError, match="'dtype' appears twice"):
        layout.parse(data)


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_no_bytes_raise_anything_but_a_manifest_error(data: bytes) -> None:
    with pytest.raises(ManifestError):
        layout.parse(data)


@settings(deadline=None)
@given(JSON)
def test_no_json_raises_anything_but_a_manifest_error(value: object) -> None:
    with pytest.raises(ManifestError):
        layout.parse(json.dumps(value).encode())


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_bent_manifest_is_refused_or_still_sound(data: st.DataObject) -> None:
    """Wrong types, huge and negative numbers, lost and doubled entries, anywhere; what passes is mapped and read."""
    check(_bent(SAMPLE, data))


@pytest.fixture(scope="module")
def real(saved: Callable[[Spec], Path], tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Of a mixture of experts: fused tensors over many units."""
    root = tmp_path_factory.mktemp("real")
    return import_directory(saved(Spec("mixtral", tied=True)), root, on_progress=lambda _: None)


@settings(deadline=None)
@given(st.data())
def test_a_bent_manifest_of_a_real_model_is_refused_or_still_sound(real: Manifest, data: st.DataObject) -> None:
    assert check(layout.dump(real)) == real
    check(_bent(real, data))


def test_sizes_are_counted() -> None:
    assert layout.total_bytes(SAMPLE) == 16384
    assert layout.kv_bytes_per_token(SAMPLE) == (2 * 16 + 2 * 16) * 2
    uneven = layout.KVSpec((LayerKV(4, 24, 4, 16), LayerKV(1, 8, 2, 4)), "float32")
    assert layout.kv_bytes_per_token(replace(SAMPLE, kv=uneven)) == (4 * 24 + 4 * 16 + 8 + 2 * 4) * 4
    assert layout.kv_bytes_per_token(replace(SAMPLE, kv=None)) == 0


def _changed(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(json.dumps(FIELDS))
    target: Any = fields
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    return fields


def _bent(manifest: Manifest, data: st.DataObject) -> bytes:
    """Its JSON, changed in a few places, with the digest that fits."""
    fields = json.loads(layout.dump(manifest))
    for _ in range(data.draw(st.integers(1, 3))):
        bend(fields, lambda most: data.draw(st.integers(0, most - 1)))
    return sealed_json(fields)
