"""safetensors headers: what the library would take is taken, what a liar writes is not."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mesh.checkpoint.errors import BadShard
from mesh.checkpoint.origins.local import LocalOrigin
from mesh.checkpoint.shards import MAX_HEADER_BYTES, Shard, read_shard
from tests.fuzz import headers

GOOD: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
}


def read(path: Path) -> Shard:
    """What read_shard() makes of a file of this machine."""
    with closing(LocalOrigin(path.parent)) as origin:
        return read_shard(origin, path.name)


def write(path: Path, header: object, data: bytes = bytes(32)) -> Path:
    """A file as the format has it, around any header."""
    spelled = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(spelled).to_bytes(8, "little") + spelled + data)
    return path


def test_a_file_of_the_library_is_read(tmp_path: Path) -> None:
    tensors = {
        "float": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "bool": torch.tensor([True, False]),
        "fp8": torch.zeros(3, dtype=torch.float8_e4m3fn),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 4),
        "complex": torch.zeros(2, dtype=torch.complex64),
        "complex scalar": torch.tensor(1 + 2j),
        "packed": torch.arange(6, dtype=torch.uint8).reshape(3, 2).view(torch.float4_e2m1fn_x2),
        "no packed": torch.zeros(3, 0, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    shard = read(tmp_path / "x.safetensors")
    data = (tmp_path / shard.file).read_bytes()
    assert {t.name: (t.dtype, t.shape) for t in shard.tensors} == {
        name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in tensors.items()
    }
    for entry in shard.tensors:
        expected = tensors[entry.name].reshape(-1).view(torch.uint8).numpy().tobytes()
        assert data[entry.offset : entry.offset + entry.bytes] == expected


def _with(name: str, **changes: object) -> dict[str, Any]:
    return GOOD | {name: GOOD[name] | changes}


def _empty(*shape: int) -> dict[str, Any]:
    """A tensor without bytes."""
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [32, 32]}


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"{", "not JSON"),
        (b"\xff\xff", "not UTF-8"),
        (b"[1]", "no JSON object"),
        (b'{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32]},"a":{}}', "'a' appears twice"),
        (b'{"a":{"dtype":"F32","dtype":"F32","shape":[8],"data_offsets":[0,32]}}', "'dtype' appears twice"),
        (GOOD | {"a": 3}, "something else than"),
        (GOOD | {"a": {"dtype": "F32", "shape": [2, 3]}}, "something else than"),
        (_with("a", dtype="F33"), "dtype 'F33', which is unknown"),
        (_with("a", dtype=["F32"]), "which is unknown"),
        (_with("a", dtype="F6_E2M3", shape=[32]), "dtype 'F6_E2M3', which is unknown"),
        (_with("a", dtype="F4", shape=[47]), "packs tensor 'a'"),
        (_with("a", dtype="F4", shape=[48, 1]), "packs tensor 'a'"),
        (_with("a", dtype="F4", shape=[]), "packs tensor 'a'"),
        (_with("a", dtype="F4", shape=[24]), "needs another number"),
        (_with("a", shape=[-2, -3]), "not of natural numbers"),
        (_with("a", shape=[2.0, 3]), "not of natural numbers"),
        (_with("a", shape=[True, 6]), "not of natural numbers"),
        (_with("a", shape="23"), "not of natural numbers"),
        (_with("a", data_offsets=[0]), "not of natural numbers"),
        (_with("a", data_offsets=[24, 0]), "needs another number"),
        (_with("a", shape=[2, 4]), "needs another number"),
        (_with("a", shape=[2**62, 2**62]), "needs another number"),
        (_with("b", data_offsets=[16, 24]), "overlaps the one before it"),
        (_with("b", data_offsets=[32, 40]), "leaves a hole"),
        (_with("a", data_offsets=[8, 32]), "leaves a hole"),
        (GOOD | {"c": {"dtype": "U8", "shape": [1], "data_offsets": [32, 33]}}, "is truncated"),
        ({"a": GOOD["a"]}, "belong to no tensor"),
        (GOOD | {"": _empty(0)}, "a tensor name of 0 characters"),
        (GOOD | {"x" * 1025: _empty(0)}, "a tensor name of 1025 characters"),
        (GOOD | {"\ud800": _empty(0)}, "half of a surrogate pair"),
        (GOOD | {"c": _empty(0, 2**62, 2)}, "cannot count"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: object, problem: str) -> None:
    path = write(tmp_path / "x.safetensors", header)
    with pytest.raises(BadShard, match=problem) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kept", [0, 7, 8, 20, -33, -32, -8, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "x.safetensors", GOOD)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadShard, match="truncated"):
        read(path)


def test_a_header_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write((MAX_HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(MAX_HEADER_BYTES + 100)  # sparse
    with pytest.raises(BadShard, match="the format allows"):
        read(path)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 7 + len(json.dumps(GOOD))), bit=st.integers(0, 7))
def test_whatever_bit_of_the_header_flips_no_range_leaves_the_file(tmp_path: Path, position: int, bit: int) -> None:
    """A flip may still rename a tensor or reshape it: the model knows its names and shapes."""
    path = write(tmp_path / "x.safetensors", GOOD)
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)
    try:
        tensors = read(path).tensors
    except BadShard:
        return
    assert [tensor.bytes for tensor in tensors] == [24, 8]
    assert [tensor.offset for tensor in tensors] == [len(data) - 32, len(data) - 8]


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_header_is_refused_or_its_tensors_can_be_laid_out_as_they_are(data: st.DataObject) -> None:
    headers.check(headers.make(lambda most: data.draw(st.integers(0, most - 1))))
