"""Expressions to tensors, in order, through a bounded ring: ranges are read ahead while earlier ones are used."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from typing import Self

import torch

from mesh.checkpoint.expression import Expression, Leaf, Source
from mesh.checkpoint.origin import Origin
from mesh.checkpoint.pace import Pace
from mesh.checkpoint.pieces import pieces


@dataclass(slots=True)
class Range:
    """A leaf on its way; `reads` fill `memory`."""

    memory: torch.Tensor  # uint8
    reads: list["Future[None]"]

    def tensor(self, leaf: Leaf) -> torch.Tensor:
        """The leaf, once it is there. Raises what reading it raised."""
        for read in self.reads:
            read.result()
        return self.memory.view(leaf.dtype).reshape(leaf.shape)


@dataclass(slots=True)
class Kept:
    """An expression that several others slice: evaluated once, gone with the last of them."""

    of: Expression
    ranges: dict[Leaf, Range]
    value: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Ordered:
    """An expression whose ranges are being read."""

    of: Expression
    ranges: Mapping[Leaf, Range]
    kept: Mapping[Expression, Kept]
    bytes: int  # of the ranges that were ordered for it


class Reader:
    """Evaluates expressions over the files of `origin`. Use as a context manager: it has threads."""

    def __init__(self, origin: Origin, pace: Pace) -> None:
        self._origin, self.pace = origin, pace
        self._pool = ThreadPoolExecutor(pace.readers, thread_name_prefix="import-read")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def tensors(self, groups: Iterable[Iterable[Expression]]) -> Iterator[torch.Tensor]:
        """The tensors of all groups, in order.

        In flight at a time are ranges of `ring_bytes`, or those of one expression that needs more. What a Whole
        evaluates to is kept for the rest of its group.
        """
        waiting: deque[Ordered] = deque()
        in_flight = 0
        for group in groups:
            kept: dict[Expression, Kept] = {}
            for expression in group:
                wanted = list(expression.sources())
                needed = sum(leaf.bytes for leaf in _missing(wanted, kept))
                while waiting and in_flight + needed > self.pace.ring_bytes:
                    in_flight -= waiting[0].bytes
                    yield _made(waiting.popleft())
                waiting.append(self._ordered(expression, wanted, kept, needed))
                in_flight += needed
        while waiting:
            yield _made(waiting.popleft())

    def compute(self, expression: Expression) -> torch.Tensor:
        """One tensor, whole."""
        (tensor,) = self.tensors([[expression]])
        return tensor

    def equal(self, first: Expression, second: Expression) -> bool:
        """What torch.equal says of them, without having either in memory."""
        if first.shape != second.shape or first.dtype != second.dtype:
            return False
        halves = [list(pieces(each, self.pace.chunk_bytes)) for each in (first, second)]
        if [piece.shape for piece in halves[0]] != [piece.shape for piece in halves[1]]:
            return torch.equal(self.compute(first), self.compute(second))
        tensors = self.tensors(zip(*halves, strict=True))
        return all(torch.equal(one, other) for one, other in zip_longest(tensors, tensors))

    def _ordered(self, of: Expression, wanted: Iterable[Source], kept: dict[Expression, Kept], needed: int) -> Ordered:
        ranges: dict[Leaf, Range] = {}
        used: dict[Expression, Kept] = {}
        for source in dict.fromkeys(wanted):
            if isinstance(source, Leaf):
                ranges[source] = self._read(source)
            else:
                if source.of not in kept:
                    kept[source.of] = Kept(source.of, {leaf: self._read(leaf) for leaf in _leaves(source.of)})
                used[source.of] = kept[source.of]
        return Ordered(of, ranges, used, needed)

    def _read(self, leaf: Leaf) -> Range:
        count = leaf.bytes
        memory = torch.empty(count, dtype=torch.uint8)
        view = memory.numpy().data
        step = self.pace.chunk_bytes
        reads = [
            self._pool.submit(self._origin.read_into, leaf.file, leaf.offset + start, view[start : start + step])
            for start in range(0, count, step)
        ]
        return Range(memory, reads)


def _leaves(of: Expression) -> set[Leaf]:
    """All of them, those below a Whole too."""
    found: set[Leaf] = set()
    for source in of.sources():
        found |= {source} if isinstance(source, Leaf) else _leaves(source.of)
    return found


def _missing(wanted: Iterable[Source], kept: Mapping[Expression, Kept]) -> set[Leaf]:
    missing: set[Leaf] = set()
    for source in wanted:
        if isinstance(source, Leaf):
            missing.add(source)
        elif source.of not in kept:
            missing |= _leaves(source.of)
    return missing


def _made(ordered: Ordered) -> torch.Tensor:
    def known(source: Source) -> torch.Tensor:
        if isinstance(source, Leaf):
            return ordered.ranges[source].tensor(source)
        return _value(ordered.kept[source.of])

    return ordered.of.evaluate(known)


def _value(kept: Kept) -> torch.Tensor:
    if kept.value is None:
        kept.value = kept.of.evaluate(_within(kept))
        kept.ranges.clear()
    return kept.value


def _within(kept: Kept) -> Callable[[Source], torch.Tensor]:
    def known(source: Source) -> torch.Tensor:
        if isinstance(source, Leaf):
            return kept.ranges[source].tensor(source)
        return source.of.evaluate(known)

    return known
