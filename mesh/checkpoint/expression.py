"""A tensor as a recipe: ranges of shards, and what is done to them. Nothing is read here: stream.py does that.

Whoever makes checkpoints out of something else than model.state_dict() builds tensors of the same parts: see Leaf.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any, Union

import torch
from torch.utils import _pytree as pytree

Shape = tuple[int, ...]
Source = Union["Leaf", "Whole"]
Known = Callable[[Source], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Expression(ABC):
    """A tensor that can be computed. Equal only to itself."""

    dtype: torch.dtype
    shape: Shape

    @property
    def bytes(self) -> int:
        """Bytes of its elements."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def has_rows(self) -> bool:
        """Whether rows() need no more of the leaves than their share."""
        return False

    @abstractmethod
    def sources(self) -> Iterator[Source]:
        """What must be known to evaluate it; what is below a Whole is left to whoever evaluates that."""

    @abstractmethod
    def evaluate(self, known: Known) -> torch.Tensor:
        """The tensor, given what sources() names. Its memory may be that of what was given."""

    def rows(self, start: int, stop: int) -> "Expression":
        """start:stop of the first dimension. Where rows are mixed all are computed, and kept: see Whole."""
        if (start, stop) == (0, self.shape[0]):
            return self
        if start == stop:
            return constant(torch.empty((0, *self.shape[1:]), dtype=self.dtype))
        return self.some_rows(start, stop)

    def row(self, index: int) -> "Expression":
        """What tensor[index] is to a tensor."""
        return self.rows(index, index + 1).reshape(self.shape[1:])

    def some_rows(self, start: int, stop: int) -> "Expression":
        """rows(), of fewer than all and more than none."""
        whole = Whole(self.dtype, self.shape, self)
        return Slice(self.dtype, (stop - start, *self.shape[1:]), whole, 0, start, stop, 1)

    def reshape(self, shape: Shape) -> "Expression":
        """The same elements, row-major, in another shape; pushed towards the leaves where that keeps rows apart."""
        return self if shape == self.shape else self.in_shape(shape)

    def in_shape(self, shape: Shape) -> "Expression":
        """reshape(), to another shape."""
        return Reshape(self.dtype, shape, self)

    def without_first(self, shape: Shape) -> bool:
        """Whether `shape` is this one without a first dimension of 1."""
        return self.shape[0] == 1 and self.shape[1:] == shape


@dataclass(frozen=True, slots=True, eq=False)
class Leaf(Expression):
    """A range of a file of the origin that starts at byte `offset`: the elements, row-major, as they are."""

    file: str
    offset: int

    @property
    def has_rows(self) -> bool:
        """They lie one after another."""
        return True

    def sources(self) -> Iterator[Source]:
        """Itself."""
        yield self

    def evaluate(self, known: Known) -> torch.Tensor:
        """What was read."""
        return known(self)

    def some_rows(self, start: int, stop: int) -> Expression:
        """A range of the range."""
        row_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        return Leaf(self.dtype, (stop - start, *self.shape[1:]), self.file, self.offset + start * row_bytes)

    def in_shape(self, shape: Shape) -> Expression:
        """The same range."""
        return Leaf(self.dtype, shape, self.file, self.offset)


@dataclass(frozen=True, slots=True, eq=False)
class Constant(Expression):
    """A tensor that no file holds, such as a buffer that the model computes; it is in memory. Made by constant()."""

    value: torch.Tensor

    @property
    def has_rows(self) -> bool:
        """They need no leaf."""
        return True

    def sources(self) -> Iterator[Source]:
        """None."""
        yield from ()

    def evaluate(self, known: Known) -> torch.Tensor:
        """The value."""
        return self.value

    def some_rows(self, start: int, stop: int) -> Expression:
        """A view."""
        return constant(self.value[start:stop])


@dataclass(frozen=True, slots=True, eq=False)
class Cat(Expression):
    """Parts one after another in dimension `dim`, where part i ends at ends[i]. Made by cat()."""

    parts: tuple[Expression, ...]
    dim: int
    ends: tuple[int, ...]

    @property
    def has_rows(self) -> bool:
        """If all parts have."""
        return all(part.has_rows for part in self.parts)

    def sources(self) -> Iterator[Source]:
        """Those of the parts."""
        for part in self.parts:
            yield from part.sources()

    def evaluate(self, known: Known) -> torch.Tensor:
        """A copy."""
        return torch.cat([part.evaluate(known) for part in self.parts], self.dim)

    def some_rows(self, start: int, stop: int) -> Expression:
        """The same rows of every part; of a cat of rows, those that are touched."""
        if self.dim:
            return cat([part.rows(start, stop) for part in self.parts], self.dim)
        found = []
        index = bisect_right(self.ends, start)
        while start < stop:
            begin, end = self.ends[index] - self.parts[index].shape[0], min(stop, self.ends[index])
            if start < end:
                found.append(self.parts[index].rows(start - begin, end - begin))
            start, index = end, index + 1
        return cat(found, 0)

    def in_shape(self, shape: Shape) -> Expression:
        """A single row of a cat in a later dimension is a cat of single rows."""
        if self.dim and self.without_first(shape):
            return cat([part.reshape(part.shape[1:]) for part in self.parts], self.dim - 1)
        return Reshape(self.dtype, shape, self)


@dataclass(frozen=True, slots=True, eq=False)
class Made(Expression):
    """What is made of one other expression."""

    of: Expression

    def sources(self) -> Iterator[Source]:
        """Those of the other."""
        yield from self.of.sources()


@dataclass(frozen=True, slots=True, eq=False)
class Permute(Made):
    """Dimensions in another order: dimension i of this is dimension dims[i] of the other. Made by permute()."""

    dims: tuple[int, ...]

    @property
    def has_rows(self) -> bool:
        """If the first dimension stays the first."""
        return self.dims[0] == 0 and self.of.has_rows

    def evaluate(self, known: Known) -> torch.Tensor:
        """A view."""
        return self.of.evaluate(known).permute(self.dims)

    def some_rows(self, start: int, stop: int) -> Expression:
        """Those of the other, permuted, if the first dimension stays the first."""
        if self.dims[0]:
            return Expression.some_rows(self, start, stop)
        return permute(self.of.rows(start, stop), self.dims)

    def in_shape(self, shape: Shape) -> Expression:
        """A single row is the other's row, permuted."""
        if self.dims[0] == 0 and self.without_first(shape):
            return permute(self.of.reshape(self.of.shape[1:]), [dim - 1 for dim in self.dims[1:]])
        return Reshape(self.dtype, shape, self)


@dataclass(frozen=True, slots=True, eq=False)
class Slice(Made):
    """start:stop:step of dimension `dim` of the other. Made by cut()."""

    dim: int
    start: int
    stop: int
    step: int

    @property
    def has_rows(self) -> bool:
        """If rows are cut, not cut away; or if all of them are kept anyway."""
        return self.of.has_rows and (self.dim > 0 or isinstance(self.of, Whole))

    def evaluate(self, known: Known) -> torch.Tensor:
        """A view."""
        return self.of.evaluate(known)[(*[slice(None)] * self.dim, slice(self.start, self.stop, self.step))]

    def some_rows(self, start: int, stop: int) -> Expression:
        """The same slice of the other's rows."""
        if self.dim:
            return cut(self.of.rows(start, stop), self.dim, slice(self.start, self.stop, self.step))
        if self.step == 1:
            return self.of.rows(self.start + start, self.start + stop)
        return Expression.some_rows(self, start, stop)

    def in_shape(self, shape: Shape) -> Expression:
        """A single row is a slice of the other's row."""
        if self.dim and self.without_first(shape):
            return cut(self.of.reshape(self.of.shape[1:]), self.dim - 1, slice(self.start, self.stop, self.step))
        return Reshape(self.dtype, shape, self)


@dataclass(frozen=True, slots=True, eq=False)
class Reshape(Made):
    """The elements of the other, in the same row-major order. Made by reshape()."""

    @property
    def has_rows(self) -> bool:
        """If they are the other's rows."""
        return self._keeps_rows and self.of.has_rows

    @property
    def _keeps_rows(self) -> bool:
        return bool(self.shape) and self.shape[:1] == self.of.shape[:1]

    def evaluate(self, known: Known) -> torch.Tensor:
        """A view if it can be."""
        return self.of.evaluate(known).reshape(self.shape)

    def some_rows(self, start: int, stop: int) -> Expression:
        """The other's rows, each in another shape."""
        if not self._keeps_rows:
            return Expression.some_rows(self, start, stop)
        return self.of.rows(start, stop).reshape((stop - start, *self.shape[1:]))

    def in_shape(self, shape: Shape) -> Expression:
        """One reshape is enough."""
        return self.of.reshape(shape)


@dataclass(frozen=True, slots=True, eq=False)
class Cast(Made):
    """Every element in another dtype, as torch converts it. Made by cast()."""

    @property
    def has_rows(self) -> bool:
        """As the other."""
        return self.of.has_rows

    def evaluate(self, known: Known) -> torch.Tensor:
        """A copy."""
        return self.of.evaluate(known).to(self.dtype)

    def some_rows(self, start: int, stop: int) -> Expression:
        """Cast for themselves."""
        return cast(self.of.rows(start, stop), self.dtype)

    def in_shape(self, shape: Shape) -> Expression:
        """Before the cast."""
        return cast(self.of.reshape(shape), self.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Apply(Expression):
    """Any other operator of torch; its arguments may hold expressions. Computed as a whole."""

    operator: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    index: int | None  # of the output; None: there is one

    def sources(self) -> Iterator[Source]:
        """Those of the arguments."""
        for argument in pytree.tree_leaves((self.args, dict(self.kwargs))):
            if isinstance(argument, Expression):
                yield from argument.sources()

    def evaluate(self, known: Known) -> torch.Tensor:
        """Runs the operator."""
        args, kwargs = pytree.tree_map_only(
            Expression, lambda argument: argument.evaluate(known).contiguous(), (self.args, dict(self.kwargs))
        )
        result = self.operator(*args, **kwargs)
        made: torch.Tensor = result if self.index is None else result[self.index]
        return made


@dataclass(frozen=True, slots=True, eq=False)
class Whole(Expression):
    """`of`, computed once and kept while slices of it are asked for."""

    of: Expression

    @property
    def has_rows(self) -> bool:
        """All are there."""
        return True

    def sources(self) -> Iterator[Source]:
        """Itself."""
        yield self

    def evaluate(self, known: Known) -> torch.Tensor:
        """What was kept."""
        return known(self)

    def some_rows(self, start: int, stop: int) -> Expression:
        """A slice."""
        return Slice(self.dtype, (stop - start, *self.shape[1:]), self, 0, start, stop, 1)


def constant(value: torch.Tensor) -> Expression:
    """A tensor that is in memory."""
    return Constant(value.dtype, tuple(value.shape), value)


def cat(parts: Sequence[Expression], dim: int) -> Expression:
    """The parts one after another; all have the same dtype and, but for `dim`, the same shape."""
    if len(parts) == 1:
        return parts[0]
    ends = tuple(accumulate(part.shape[dim] for part in parts))
    shape = (*parts[0].shape[:dim], ends[-1], *parts[0].shape[dim + 1 :])
    return Cat(parts[0].dtype, shape, tuple(parts), dim, ends)


def permute(of: Expression, dims: Sequence[int]) -> Expression:
    """Dimensions in another order."""
    if list(dims) == list(range(len(dims))):
        return of
    return Permute(of.dtype, tuple(of.shape[dim] for dim in dims), of, tuple(dims))


def cut(of: Expression, dim: int, where: slice) -> Expression:
    """A slice of a dimension; where.indices() must leave it as it is."""
    start, stop, step = where.start, where.stop, where.step
    if dim == 0 and step == 1:
        return of.rows(start, stop)
    if (start, stop, step) == (0, of.shape[dim], 1):
        return of
    shape = (*of.shape[:dim], len(range(start, stop, step)), *of.shape[dim + 1 :])
    return Slice(of.dtype, shape, of, dim, start, stop, step)


def cast(of: Expression, dtype: torch.dtype) -> Expression:
    """In another dtype."""
    return of if dtype == of.dtype else Cast(dtype, of.shape, of)
