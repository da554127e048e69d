"""What lies inside a sequence's cache, whatever its class: tensors and numbers by their paths, counted, copied out, and
put into another cache of the same kind."""

import copy
from collections.abc import Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from services.worker.engine.errors import StateMismatch
from services.worker.engine.footprint import Footprint, Growth
from services.worker.engine.request import EngineRequest

Number = bool | int | float | str | None
NUMBERS = (bool, int, float, str, type(None))


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value in a cache: the object's attributes, mapping or list that hold it, and under which key."""

    path: str
    home: MutableMapping[Any, Any] | MutableSequence[Any]
    key: Any

    @property
    def value(self) -> Any:
        """What is there now."""
        return self.home[self.key]

    def put(self, value: Any) -> None:
        """Replace it."""
        self.home[self.key] = value


@dataclass(frozen=True, slots=True)
class Kind:
    """What is the same of a tensor in all caches of a model; None for sizes that depend on the sequence."""

    dtype: torch.dtype
    shape: tuple[int | None, ...]

    def allows(self, dtype: torch.dtype, shape: Sequence[int]) -> bool:
        """Whether a tensor like this could be it."""
        alike = dtype is self.dtype and len(shape) == len(self.shape)
        return alike and all(size in (None, given) for size, given in zip(self.shape, shape, strict=True))


@dataclass(frozen=True, slots=True)
class StateRoom:
    """What a state that is to come has to be like."""

    layout: bytes
    kinds: Mapping[str, Kind]  # of its tensors, by path
    most_bytes: int


@dataclass(frozen=True, slots=True)
class HeldState:
    """A sequence between two steps, with what is held of it. `request` has all its tokens; `tensors` are copies on the
    host."""

    request: EngineRequest
    layout: bytes  # states of equal layouts are interchangeable, between replicas of one checkpoint
    seen: tuple[int, ...]  # the tokens whose state this is: leading ones of the request's, not all
    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Number]

    @property
    def bytes(self) -> int:
        """Size of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def leaves(cache: Any) -> list[Leaf]:
    """Every tensor and number in it, in an order that the cache's make-up alone decides."""
    return list(_walk({"": cache}, "", set()))


def _walk(home: Any, path: str, seen: set[int]) -> Iterator[Leaf]:
    for key in range(len(home)) if isinstance(home, list) else home:
        value, inner = home[key], f"{path}/{key}"
        if isinstance(value, (Tensor, *NUMBERS)):
            yield Leaf(inner, home, key)
        elif (isinstance(value, list | dict) or _is_cache(value)) and id(value) not in seen:
            seen.add(id(value))
            yield from _walk(value if isinstance(value, list | dict) else vars(value), inner, seen)


def _is_cache(value: Any) -> bool:
    """A cache or a layer of one; not a class, a dtype or a device that it refers to."""
    return hasattr(value, "reorder_cache") and not isinstance(value, type)


def footprint(shorter: Mapping[str, int], cache: Any, tokens: int) -> Footprint:
    """Of caches like this one of `tokens` tokens; `shorter` are its tensors' sizes before the last token came."""
    values = {leaf.path: leaf.value for leaf in leaves(cache)}
    windows: dict[int | None, int] = {}
    total = 0
    for path, size in sizes(cache).items():
        window = values.get(f"{path.rpartition('/')[0]}/sliding_window")
        total += size
        if (more := size - shorter.get(path, 0)) > 0:
            windows[window] = windows.get(window, 0) + more
    grows = tuple(Growth(token_bytes, window) for window, token_bytes in windows.items())
    return Footprint(max(0, total - Footprint(0, grows).bytes(tokens)), grows)


def sizes(cache: Any) -> dict[str, int]:
    """Bytes of each tensor by its path."""
    return {leaf.path: leaf.value.nbytes for leaf in leaves(cache) if isinstance(leaf.value, Tensor)}


def trim(cache: Any) -> None:
    """Give back memory that views keep alive: after a long prompt, a window's layer holds a piece of all of it."""
    for leaf in leaves(cache):
        if isinstance(leaf.value, Tensor) and leaf.value.untyped_storage().nbytes() > leaf.value.nbytes:
            leaf.put(leaf.value.clone())


def emptied(cache: Any) -> Any:
    """Another cache of the same make-up without the memory: what `filled` starts from."""
    memo = {id(one.value): torch.empty(0) for one in leaves(cache) if isinstance(one.value, Tensor)}
    return copy.deepcopy(cache, memo)


def taken(cache: Any, request: EngineRequest, layout: bytes, seen: tuple[int, ...]) -> HeldState:
    """A copy on the host of what `cache` holds of the tokens `seen`."""
    found = leaves(cache)
    tensors = {one.path: one.value.detach().to("cpu", copy=True) for one in found if isinstance(one.value, Tensor)}
    numbers = {one.path: one.value for one in found if not isinstance(one.value, Tensor)}
    return HeldState(request, layout, seen, MappingProxyType(tensors), MappingProxyType(numbers))


def kinds(shorter: Mapping[str, tuple[int, ...]], cache: Any) -> Mapping[str, Kind]:
    """Of the tensors in caches like this one; `shorter` are their shapes before the last token came."""
    found = {leaf.path: leaf.value for leaf in leaves(cache) if isinstance(leaf.value, Tensor)}
    return MappingProxyType(
        {path: Kind(value.dtype, _fixed(shorter.get(path, ()), tuple(value.shape))) for path, value in found.items()}
    )


def shapes(cache: Any) -> dict[str, tuple[int, ...]]:
    """Of each tensor by its path."""
    return {leaf.path: tuple(leaf.value.shape) for leaf in leaves(cache) if isinstance(leaf.value, Tensor)}


def filled(blank: Any, kinds: Mapping[str, Kind], state: HeldState, device: torch.device) -> Any:
    """A cache like `blank`, with tensors of these kinds, that holds `state`. StateMismatch if it is another model's."""
    cache = copy.deepcopy(blank)
    places = {leaf.path: leaf for leaf in leaves(cache)}
    given: dict[str, Tensor | Number] = {**state.tensors, **state.numbers}
    odd = places.keys() ^ given.keys() | kinds.keys() ^ state.tensors.keys()
    odd |= {
        path
        for path, tensor in state.tensors.items()
        if path in kinds and not kinds[path].allows(tensor.dtype, tensor.shape)
    }
    if odd:
        raise StateMismatch(
            f"the state is of another make-up than this model's: {', '.join(sorted(odd)[:3])}; send the tokens"
        )
    for path, value in given.items():
        places[path].put(value.to(device) if isinstance(value, Tensor) else value)
    return cache


def _fixed(shorter: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int | None, ...]:
    if len(shorter) != len(shape):
        return (None,) * len(shape)
    return tuple(size if size == before else None for before, size in zip(shorter, shape, strict=True))
