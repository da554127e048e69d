"""One step as forward passes: a single one when speed is all, else passes whose shape no other request changes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from services.worker.engine.batch import Span
from services.worker.engine.numerics import Numerics


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass: one-token spans first. Its last token is repeated until there are `rows`."""

    spans: tuple[Span, ...]
    rows: int = 0


def passes(spans: Sequence[Span], numerics: Numerics) -> list[Pass]:
    """In the order in which they must run: a token's KV is written in an earlier pass than others need it, or in the
    same one, whose layers write before they read."""
    if not numerics.tile:
        return [Pass(tuple(spans))]
    pieces = [piece for span in spans for piece in _pieces(span, numerics)]
    chunks = [Pass((piece,)) for piece in pieces if piece.count > 1]
    rows = [piece for piece in pieces if piece.count == 1]
    return chunks + [
        Pass(tuple(rows[i : i + numerics.tile]), numerics.tile) for i in range(0, len(rows), numerics.tile)
    ]


def spare_rows(spans: Sequence[Span], numerics: Numerics) -> int:
    """Rows that a level would fill by repeating what is in them already."""
    return sum(max(0, one.rows - len(one.spans)) for one in passes(spans, numerics))


def _pieces(span: Span, numerics: Numerics) -> Iterator[Span]:
    """The chunks of its prompt's tokens, then the tokens of its answer one by one: as they were when it began, however
    many of them are computed again now."""
    generation, first = span.generation, span.start
    start = first
    while start < span.end:
        in_prompt = numerics.cuts_prompts and start < generation.prompt_len
        end = min(numerics.end_after(start + 1, generation.prompt_len), span.end) if in_prompt else start + 1
        yield replace(span, count=end - start, offset=span.offset + start - first)
        start = end
