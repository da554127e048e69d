"""Where every tensor goes: units in forward order, experts equally far apart. Pure; part.py writes the bytes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod

from mesh.checkpoint.records import ALIGNMENT, DTYPES, TENSOR_ALIGNMENT, Tensor, UnitKind, align_up


@dataclass(frozen=True, slots=True)
class Placement:
    """A tensor to be placed, and where it belongs.

    For kind EXPERT the first dimension counts the layer's experts, unless `expert` says whose alone the tensor is.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: UnitKind
    layer: int | None = None
    expert: int | None = None

    @property
    def bytes(self) -> int:
        """Bytes of the whole tensor."""
        return prod(self.shape) * DTYPES[self.dtype]


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor, or the slice of a fused one that belongs to `expert`, and its byte offset within the part."""

    tensor: str
    offset: int
    expert: int | None = None


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """A unit whose bytes are not yet known."""

    name: str
    kind: UnitKind
    layer: int | None
    expert: int | None
    offset: int
    bytes: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """One part: its units in order, the tensors as views into it, its size."""

    units: tuple[PlannedUnit, ...]
    tensors: tuple[Tensor, ...]
    bytes: int


def lay_out(placements: Iterable[Placement]) -> Plan:
    """Embedding; each layer's dense tensors, then its experts; the head. Tensors of a unit stay in the order given."""
    units: list[PlannedUnit] = []
    tensors: list[Tensor] = []
    end = 0
    for _, group in groupby(sorted(placements, key=_order), key=_order):
        members = tuple(group)
        fused = members[0].kind is UnitKind.EXPERT and members[0].expert is None
        place = _experts if fused else _dense
        made, views = place(members, end)
        units += made
        tensors += views
        end = align_up(made[-1].offset + made[-1].bytes, ALIGNMENT)
    return Plan(tuple(unit for unit in units if unit.bytes), tuple(tensors), end)


def _order(placement: Placement) -> tuple[int, int, bool, int]:
    rank = {UnitKind.EMBEDDING: 0, UnitKind.HEAD: 2}.get(placement.kind, 1)
    return rank, placement.layer or 0, placement.kind is UnitKind.EXPERT, placement.expert or 0


def _dense(members: Sequence[Placement], start: int) -> tuple[list[PlannedUnit], list[Tensor]]:
    kind, layer, expert = members[0].kind, members[0].layer, members[0].expert
    offsets, end = _pack((member.bytes for member in members), start)
    name = kind.value if layer is None else f"layers.{layer}"
    name = name if expert is None else f"{name}.experts.{expert}"
    unit = PlannedUnit(name, kind, layer, expert, start, end - start, _pieces(members, offsets))
    views = [
        Tensor(member.name, member.dtype, member.shape, contiguous(member.shape), 0, offset)
        for member, offset in zip(members, offsets, strict=True)
    ]
    return [unit], views


def _experts(members: Sequence[Placement], start: int) -> tuple[list[PlannedUnit], list[Tensor]]:
    """A unit per expert with its slice of every tensor, all laid out alike: a tensor has one stride over units."""
    layer, count = members[0].layer, members[0].shape[0]
    offsets, end = _pack((member.bytes // count for member in members), start)
    step = align_up(end - start, ALIGNMENT)
    units = [
        PlannedUnit(
            name=f"layers.{layer}.experts.{expert}",
            kind=UnitKind.EXPERT,
            layer=layer,
            expert=expert,
            offset=start + expert * step,
            bytes=end - start,
            pieces=_pieces(members, (offset + expert * step for offset in offsets), expert),
        )
        for expert in range(count)
    ]
    views = [
        Tensor(m.name, m.dtype, m.shape, (step // DTYPES[m.dtype], *contiguous(m.shape[1:])), 0, offset)
        for m, offset in zip(members, offsets, strict=True)
    ]
    return units, views


def _pieces(members: Sequence[Placement], offsets: Iterable[int], expert: int | None = None) -> tuple[Piece, ...]:
    return tuple(Piece(member.name, offset, expert) for member, offset in zip(members, offsets, strict=True))


def _pack(sizes: Iterable[int], start: int) -> tuple[list[int], int]:
    """Offsets of things that lie one after another, each aligned, and the end of the last."""
    offsets: list[int] = []
    end = start
    for size in sizes:
        offsets.append(align_up(end, TENSOR_ALIGNMENT))
        end = offsets[-1] + size
    return offsets, end


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a dense row-major tensor, as torch counts them."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * max(size, 1))
    return tuple(reversed(strides[: len(shape)]))
