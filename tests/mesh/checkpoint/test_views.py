"""Views: the right numbers of every dtype, at no cost of memory."""

from dataclasses import replace

import pytest
import torch

from mesh.checkpoint import layout
from mesh.checkpoint.layout import ALIGNMENT, DTYPES, Manifest, Part, Unit, UnitKind
from mesh.checkpoint.part import bytes_of
from mesh.checkpoint.plan import Placement, lay_out
from mesh.checkpoint.views import tensor_views

from .samples import manifest, sealed

SAMPLE = manifest()


def _random(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Random bits, in whatever type; bools as torch stores them."""
    count = torch.Size(shape).numel() * dtype.itemsize
    bits = torch.randint(0, 2 if dtype is torch.bool else 256, (count,), dtype=torch.uint8)
    return bits.view(dtype).reshape(shape)


def _stored(tensors: dict[str, torch.Tensor], kind: UnitKind) -> tuple[Manifest, torch.Tensor]:
    """A manifest, and its part in memory."""
    plan = lay_out(
        Placement(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), kind, 0)
        for name, tensor in tensors.items()
    )
    part = torch.zeros(plan.bytes, dtype=torch.uint8)
    for unit in plan.units:
        for piece in unit.pieces:
            tensor = tensors[piece.tensor]
            data = bytes_of(tensor if piece.expert is None else tensor[piece.expert])
            part[piece.offset : piece.offset + len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    units = tuple(Unit(u.name, u.kind, 0, u.offset, u.bytes, "0" * 64, u.layer, u.expert) for u in plan.units)
    parts = (Part("part-000.bin", 0, plan.bytes),)
    whole = sealed(replace(SAMPLE, parts=parts, units=units, tensors=plan.tensors, ties=()))
    layout.validate(whole)
    return layout.parse(layout.dump(whole)), part


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("kind", [UnitKind.LAYER, UnitKind.EXPERT])
@pytest.mark.parametrize("name", sorted(DTYPES))
def test_every_dtype_comes_back_bit_for_bit(name: str, kind: UnitKind) -> None:
    dtype: torch.dtype = getattr(torch, name)
    assert dtype.itemsize == DTYPES[name]
    tensors = {"other": _random((3, 5), torch.bool), "tensor": _random((3, 5, 7), dtype)}
    whole, part = _stored(tensors, kind)
    found = tensor_views(whole, [part])["tensor"]
    assert found.dtype is dtype
    assert found.shape == (3, 5, 7)
    assert bytes(bytes_of(found)) == bytes(bytes_of(tensors["tensor"]))


def test_views_share_the_memory_of_the_part() -> None:
    part = torch.zeros(SAMPLE.parts[0].bytes, dtype=torch.uint8)
    views = tensor_views(SAMPLE, [part])
    part[8192:8196] = torch.tensor([0, 0, 128, 63], dtype=torch.uint8)  # 1.0
    assert views["experts"][0, 0, 0] == 1.0
    assert views["experts"].stride() == (1024, 8, 1)
    assert views["bias"].data_ptr() == part.data_ptr() + 4096
    assert views["experts"][1].data_ptr() == part.data_ptr() + 12288


def test_a_tie_is_the_same_tensor() -> None:
    views = tensor_views(SAMPLE, [torch.zeros(SAMPLE.parts[0].bytes, dtype=torch.uint8)])
    assert views["head"] is views["embed"]
    assert list(views) == ["embed", "bias", "experts", "head"]


def test_a_part_may_lie_within_larger_memory() -> None:
    pool = torch.zeros(3 * ALIGNMENT + SAMPLE.parts[0].bytes, dtype=torch.uint8)
    part = pool[ALIGNMENT : ALIGNMENT + SAMPLE.parts[0].bytes]
    views = tensor_views(SAMPLE, [part])
    views["embed"][0, 1] = 1.0
    assert pool[ALIGNMENT + 6 : ALIGNMENT + 8].tolist() == [128, 63]
    assert pool.count_nonzero() == 2


def test_tensors_come_from_the_part_they_name() -> None:
    parts = (SAMPLE.parts[0], Part("part-001.bin", 1, 16384))
    units = (*SAMPLE.units, replace(SAMPLE.units[0], name="other", part=1))
    tensors = (*SAMPLE.tensors, replace(SAMPLE.tensors[0], name="second", part=1))
    both = sealed(replace(SAMPLE, parts=parts, units=units, tensors=tensors))
    layout.validate(both)
    memory = [torch.zeros(16384, dtype=torch.uint8), torch.zeros(16384, dtype=torch.uint8)]
    views = tensor_views(both, memory)
    views["second"].fill_(1)
    assert not views["embed"].any()


@pytest.mark.parametrize("sizes", [[], [4096], [16384, 16384], [16385]])
def test_other_parts_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="are not those of checkpoint"):
        tensor_views(SAMPLE, [torch.zeros(size, dtype=torch.uint8) for size in sizes])
