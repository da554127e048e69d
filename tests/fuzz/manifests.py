"""Manifests bent at random, and what must hold of any that still passes. Where the chance comes from is the caller's:
hypothesis in the tests, libFuzzer in the harness."""

import json
from collections.abc import Callable
from typing import Any

import torch

from mesh.checkpoint import layout
from mesh.checkpoint.errors import ManifestError
from mesh.checkpoint.layout import Manifest
from mesh.checkpoint.views import tensor_views

Choose = Callable[[int], int]  # a number below the one given
MOST_MEMORY_BYTES = 4 << 20  # of the parts that views are built on
NUMBERS = (
    0, 1, 2, 3, 7, 8, 63, 64, 65, 96, 128, 255, 256, 1024, 2048, 4095, 4096, 4097, 8192, 12288, 16384, 16385,
    2**31, 2**32, 2**53, 2**62, 2**63 - 64, 2**63 - 1, 2**63, 2**64, 2**65, -1, -64, -4096, -(2**63), -(2**65),
)  # fmt: skip
WORDS = (
    "", "float32", "bool", "complex128", "float4_e2m1fn_x2", "embedding", "layer", "expert", "head", "adapter",
    "F4", "F6_E2M3", "F32", "U8", "BOOL", "C64",
    "0" * 64, "part-000.bin", "part-001.bin", "../x", "a/b", "a", "config.json", "embed", "bias", "head", "é\0",
)  # fmt: skip
VALUES = ("null", "true", "1.5", "[]", "{}", "[0]", "[[]]", '{"a": 1}')


def bend(fields: Any, choose: Choose) -> None:
    """Changes one place of a manifest's JSON: mostly to another number, so that the result is often still one."""
    path = _somewhere(fields, choose)
    if not path:
        return
    target: Any = fields
    for step in path[:-1]:
        target = target[step]
    last = path[-1]
    action = choose(10)
    if action == 0:
        del target[last]
    elif action == 1 and isinstance(target, list):
        target.insert(choose(len(target) + 1), json.loads(json.dumps(target[last])))
    elif action == 2:
        target[last] = json.loads(VALUES[choose(len(VALUES))])
    elif action == 3 or isinstance(target[last], str):
        target[last] = WORDS[choose(len(WORDS))]
    elif action == 4 and type(target[last]) is int:
        target[last] += NUMBERS[choose(len(NUMBERS))] * (1 - 2 * choose(2))
    else:
        target[last] = NUMBERS[choose(len(NUMBERS))]


def _somewhere(value: Any, choose: Choose) -> list[str | int]:
    """A path into nested JSON; longer ones as likely as short ones."""
    path: list[str | int] = []
    while isinstance(value, (dict, list)) and value and not (path and choose(6) == 0):
        steps: Any = sorted(value) if isinstance(value, dict) else range(len(value))
        path.append(steps[choose(len(steps))])
        value = value[path[-1]]
    return path


def sealed_json(fields: dict[str, Any]) -> bytes:
    """The JSON with the digest that a liar would give it; as it is when it cannot be parsed."""
    data = json.dumps(fields).encode()
    try:
        return json.dumps(fields | {"digest": layout.digest_of(layout.parse(data))}).encode()
    except ManifestError:
        return data


def check(manifest_json: bytes) -> Manifest | None:
    """The manifest, if it passes; AssertionError if one passes whose ranges, views or JSON are not sound."""
    try:
        manifest = layout.parse(manifest_json)
        layout.validate(manifest)
    except ManifestError:
        return None
    assert layout.parse(layout.dump(manifest)) == manifest
    assert 0 <= layout.total_bytes(manifest) < 2**63
    assert 0 <= layout.kv_bytes_per_token(manifest) < 2**63
    for unit in manifest.units:
        assert 0 <= unit.offset < unit.offset + unit.bytes <= manifest.parts[unit.part].bytes
    if layout.total_bytes(manifest) <= MOST_MEMORY_BYTES:
        _look_through(manifest)
    return manifest


def _look_through(manifest: Manifest) -> None:
    """Reads each tensor, through a view of memory that has not a byte more than its part."""
    parts = [torch.zeros(part.bytes, dtype=torch.uint8) for part in manifest.parts]
    views = tensor_views(manifest, parts)
    assert len(views) == len(manifest.tensors) + len(manifest.ties)
    for tensor in manifest.tensors:
        view, part = views[tensor.name], parts[tensor.part]
        assert tuple(view.shape) == tensor.shape
        if view.numel():
            first = view.data_ptr() - part.data_ptr()
            last = sum((size - 1) * stride for size, stride in zip(view.shape, view.stride(), strict=True))
            assert 0 <= first <= first + (last + 1) * view.itemsize <= part.numel()
            assert not view.clone(memory_format=torch.contiguous_format).view(torch.uint8).any()
