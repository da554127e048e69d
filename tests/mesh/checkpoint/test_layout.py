"""The manifest: what is written is read back, and nothing else is taken for one."""

import json
from dataclasses import replace
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.checkpoint import layout
from mesh.checkpoint.errors import ManifestError
from mesh.checkpoint.layout import LayerKV

from .samples import manifest, sealed

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


@settings(deadline=None)
@given(st.data())
def test_no_mutation_of_a_manifest_raises_anything_but_a_manifest_error(data: st.DataObject) -> None:
    """Wrong types, huge and negative numbers, lost and doubled entries, anywhere: refused, or still sound."""
    fields = json.loads(json.dumps(FIELDS))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(_paths(fields)))
        action = data.draw(st.sampled_from(["replace", "number", "delete", "double"]))
        _mutate(fields, path, action, data.draw(JSON), data.draw(st.integers(-(2**65), 2**65)))
    try:
        parsed = layout.parse(json.dumps(fields).encode())
        layout.validate(sealed(parsed))
    except ManifestError:
        return
    assert layout.parse(layout.dump(parsed)) == parsed
    assert 0 <= layout.total_bytes(parsed) < 2**63
    assert 0 <= layout.kv_bytes_per_token(parsed) < 2**63


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


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a JSON value but the root."""
    steps: Any = ()
    if isinstance(value, dict):
        steps = value.items()
    elif isinstance(value, list):
        steps = enumerate(value)
    return [(*path, step) for step, _ in steps] + [p for step, inner in steps for p in _paths(inner, (*path, step))]


def _mutate(fields: Any, path: tuple[str | int, ...], action: str, value: object, number: int) -> None:
    target: Any = fields
    for step in path[:-1]:
        target = target[step]
    last: Any = path[-1]
    if action == "delete":
        del target[last]
    elif action == "double" and isinstance(target, list):
        target.append(target[last])
    else:
        target[last] = number if action == "number" else value
