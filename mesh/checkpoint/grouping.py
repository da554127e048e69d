"""Which unit a tensor belongs to, read off its name alone: for tensors that no model class vouches for. Pure."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mesh.checkpoint.plan import Placement
from mesh.checkpoint.records import UnitKind
from mesh.checkpoint.shards import ShardTensor

_EARLY = re.compile(r"(?:[a-z0-9]+_)*emb|wte$|wpe$", re.ASCII)  # embed_tokens, tok_embeddings, rotary_emb, wte
_LATE = frozenset({"embed_out"})  # what GPT-NeoX calls its head
MAX_INDEX_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Place:
    """Where a name points: a layer, one of its experts, before the layers or after them."""

    kind: UnitKind
    layer: int | None = None
    expert: int | None = None


def group(tensors: Iterable[ShardTensor]) -> tuple[Placement, ...]:
    """A placement for every tensor, by name, so the same however the tensors were sharded.

    The layers are the numbered list ("model.layers.7.") that holds the most bytes; "experts.3." below one is an expert.
    """
    ordered = sorted(tensors, key=lambda tensor: tensor.name)
    layers = _layer_list(ordered)
    return tuple(_placed(tensor, place_of_name(tensor.name, layers)) for tensor in ordered)


def place_of_name(name: str, layers: Sequence[str] | None) -> Place:
    """The place of a tensor, given the steps of the name that lead to the list of layers."""
    steps = name.split(".")
    number = _first_number(steps)
    if layers is None or number is None or steps[:number] != list(layers):
        early = any(_EARLY.match(step.lower()) and step not in _LATE for step in steps)
        return Place(UnitKind.EMBEDDING if early else UnitKind.HEAD)
    layer, expert = int(steps[number]), _expert(steps[number + 1 :])
    return Place(UnitKind.LAYER if expert is None else UnitKind.EXPERT, layer, expert)


def _placed(tensor: ShardTensor, place: Place) -> Placement:
    return Placement(tensor.name, tensor.dtype, tensor.shape, place.kind, place.layer, place.expert)


def _layer_list(tensors: Iterable[ShardTensor]) -> tuple[str, ...] | None:
    sizes: dict[tuple[str, ...], int] = defaultdict(int)
    for tensor in tensors:
        steps = tensor.name.split(".")
        number = _first_number(steps)
        if number is not None:
            sizes[tuple(steps[:number])] += tensor.bytes
    return max(sizes, key=lambda steps: (sizes[steps], steps), default=None)


def _first_number(steps: Sequence[str]) -> int | None:
    """Position of the first step that is an index: that of the outermost list."""
    return next((position for position, step in enumerate(steps) if _is_index(step)), None)


def _expert(steps: Sequence[str]) -> int | None:
    for owner, step in pairwise(steps):
        if owner.endswith("experts") and "shared" not in owner and _is_index(step):
            return int(step)
    return None


def _is_index(step: str) -> bool:
    return step.isascii() and step.isdecimal() and len(step) <= MAX_INDEX_DIGITS
