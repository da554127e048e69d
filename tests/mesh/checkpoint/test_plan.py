"""The layout: whatever the tensors, the units are in order, aligned, and apart."""

from dataclasses import replace
from math import prod

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.checkpoint import layout
from mesh.checkpoint.layout import DTYPES, Part, Unit, UnitKind
from mesh.checkpoint.plan import Placement, Plan, contiguous, lay_out

from .samples import manifest, sealed

EMBEDDING, LAYER, EXPERT, HEAD = UnitKind.EMBEDDING, UnitKind.LAYER, UnitKind.EXPERT, UnitKind.HEAD
SHAPES = st.lists(st.integers(0, 9), max_size=3).map(tuple)


@st.composite
def models(draw: st.DrawFn) -> list[Placement]:
    """Tensors of a random model, in random order."""
    names = (f"t{number}" for number in range(1000))
    dtypes = st.sampled_from(sorted(DTYPES))
    placements = [
        Placement(next(names), draw(dtypes), draw(SHAPES), kind)
        for kind in draw(st.lists(st.sampled_from([EMBEDDING, HEAD]), max_size=5))
    ]
    for layer in range(draw(st.integers(0, 3))):
        experts = draw(st.integers(2, 4))
        for kind in draw(st.lists(st.sampled_from([LAYER, EXPERT]), max_size=4)):
            shape = draw(SHAPES) if kind is LAYER else (experts, *draw(SHAPES))
            placements.append(Placement(next(names), draw(dtypes), shape, kind, layer))
    return draw(st.permutations(placements))


@settings(deadline=None)
@given(models())
def test_any_model_gives_a_valid_manifest(placements: list[Placement]) -> None:
    plan = lay_out(placements)
    units = tuple(Unit(u.name, u.kind, 0, u.offset, u.bytes, "0" * 64, u.layer, u.expert) for u in plan.units)
    parts = (Part("part-000.bin", 0, plan.bytes),)
    whole = replace(manifest(), parts=parts, units=units, tensors=plan.tensors, ties=())
    layout.validate(sealed(whole))
    assert {tensor.name: tensor.shape for tensor in plan.tensors} == {p.name: p.shape for p in placements}


@settings(deadline=None)
@given(models())
def test_no_two_tensors_share_a_byte_and_pieces_are_where_the_views_look(placements: list[Placement]) -> None:
    plan = lay_out(placements)
    taken: set[int] = set()
    for placement in placements:
        mine = _bytes_of_view(plan, placement.name)
        assert len(mine) == prod(placement.shape) * DTYPES[placement.dtype]
        assert not taken & mine
        assert mine == _bytes_of_pieces(plan, placement)
        taken |= mine


def test_units_lie_in_forward_order_whatever_the_order_given() -> None:
    shape = (4, 64)
    placements = [
        Placement("head", "float32", shape, HEAD),
        Placement("l1.experts", "float32", shape, EXPERT, 1),
        Placement("l1.norm", "float32", shape, LAYER, 1),
        Placement("l0.b", "float32", shape, LAYER, 0),
        Placement("l0.a", "float32", shape, LAYER, 0),
        Placement("embed", "float32", shape, EMBEDDING),
    ]
    plan = lay_out(placements)
    experts = [f"layers.1.experts.{expert}" for expert in range(4)]
    assert [unit.name for unit in plan.units] == ["embedding", "layers.0", "layers.1", *experts, "head"]
    assert [piece.tensor for piece in plan.units[1].pieces] == ["l0.b", "l0.a"]
    assert plan.bytes == 8 * 4096


def test_the_slices_of_an_expert_lie_together_at_one_stride() -> None:
    plan = lay_out(
        [
            Placement("up", "bfloat16", (3, 40, 64), EXPERT, 0),
            Placement("down", "float32", (3, 7), EXPERT, 0),
        ]
    )
    up, down = plan.tensors
    assert (up.offset, up.strides) == (0, (4096 * 2 // 2, 64, 1))
    assert (down.offset, down.strides) == (40 * 64 * 2, (4096 * 2 // 4, 1))
    assert [(unit.offset, unit.bytes) for unit in plan.units] == [(n * 8192, 5120 + 28) for n in range(3)]


def test_a_unit_without_bytes_is_left_out() -> None:
    plan = lay_out([Placement("empty", "float32", (0, 4), HEAD), Placement("embed", "int8", (5,), EMBEDDING)])
    assert [unit.name for unit in plan.units] == ["embedding"]
    assert plan.bytes == 4096


def test_strides_are_torchs() -> None:
    assert contiguous(()) == ()
    assert contiguous((5,)) == (1,)
    assert contiguous((2, 3, 4)) == (12, 4, 1)
    assert contiguous((2, 0, 4)) == (4, 4, 1)


def _bytes_of_view(plan: Plan, name: str) -> set[int]:
    tensor = next(tensor for tensor in plan.tensors if tensor.name == name)
    starts = [tensor.offset] if 0 not in tensor.shape else []
    itemsize = DTYPES[tensor.dtype]
    for size, stride in zip(tensor.shape, tensor.strides, strict=True):
        starts = [start + index * stride * itemsize for start in starts for index in range(size)]
    return {start + byte for start in starts for byte in range(itemsize)}


def _bytes_of_pieces(plan: Plan, placement: Placement) -> set[int]:
    pieces = [(unit, piece) for unit in plan.units for piece in unit.pieces if piece.tensor == placement.name]
    size = placement.bytes // (placement.shape[0] if placement.kind is EXPERT else 1)
    found: set[int] = set()
    for unit, piece in pieces:
        assert unit.offset <= piece.offset
        assert piece.offset + size <= unit.offset + unit.bytes
        found |= set(range(piece.offset, piece.offset + size))
    return found
