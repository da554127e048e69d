"""An expression cut into small ones, so that no tensor need be in memory as a whole."""

from collections.abc import Iterator
from math import prod

from mesh.checkpoint.expression import Cat, Expression, Leaf


def pieces(of: Expression, chunk_bytes: int) -> Iterator[Expression]:
    """Expressions that, one after another, have the same elements; where rows mix there is one, else none is larger."""
    if not of.bytes:
        return
    if isinstance(of, Leaf):
        yield from _ranges(of, chunk_bytes)
    elif isinstance(of, Cat) and of.dim == 0:
        for part in of.parts:
            yield from pieces(part, chunk_bytes)
    elif of.bytes <= chunk_bytes or not of.shape or not of.has_rows:
        yield of
    else:
        yield from _blocks(of, chunk_bytes)


def _ranges(of: Leaf, chunk_bytes: int) -> Iterator[Leaf]:
    flat = of.reshape((prod(of.shape),))
    step = max(1, chunk_bytes // of.dtype.itemsize)
    for start in range(0, flat.shape[0], step):
        piece = flat.rows(start, min(start + step, flat.shape[0]))
        assert isinstance(piece, Leaf)
        yield piece


def _blocks(of: Expression, chunk_bytes: int) -> Iterator[Expression]:
    """Rows; of rows that are too large, pieces."""
    count = of.shape[0]
    step = chunk_bytes // (of.bytes // count)
    if step:
        for start in range(0, count, step):
            yield of.rows(start, min(start + step, count))
    else:
        for index in range(count):
            yield from pieces(of.row(index), chunk_bytes)
