"""A part of a trace as requests to a cluster's models.

Whose requests go to which model is AlpaServe's choice (OSDI'23): keys, such as functions, in order of their first
request, go to models by turns (stripe) or in blocks of equal size. Where a trace has no keys, each request's model is
drawn, by a Zipf law. Where it has no tokens, lengths are drawn from a table. Requests are left out by chance down to
the rate that is asked for; times are never stretched.
"""

import math
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from sim.lengths import TABLES
from sim.request import Request
from sim.traces.formats import FORMATS
from sim.traces.row import BadTrace, Row, Window
from sim.workload import model_name

WHOLE = Window(0.0, math.inf)


class Assignment(StrEnum):
    """Of keys to models."""

    STRIPE = "stripe"
    BLOCKS = "blocks"


@dataclass(frozen=True, slots=True)
class Replay:
    """What to make of a trace. Reads it twice: first to count."""

    format: str  # of FORMATS
    path: Path
    models: int
    window: Window = WHOLE
    rps: float | None = None  # None: all there are
    assignment: Assignment = Assignment.STRIPE
    skew: float = 0.9  # Zipf exponent of models drawn
    lengths: str = "azure-conv"  # of TABLES
    seed: int = 0

    def requests(self) -> list[Request]:
        """In order of arrival, from second 0. BadTrace says what is wrong in a file."""
        counts = Counter[str]()
        for row in self._rows():
            counts[row.key] += row.count
        total, wanted = counts.total(), None if self.rps is None else self.rps * self.window.for_s
        if not total or (wanted is not None and wanted > total):
            raise BadTrace(f"{self.path} has {total} requests in this window, and {wanted or 1:g} are wanted")
        share = 1.0 if wanted is None else wanted / total
        places = {key: self._place(number, len(counts)) for number, key in enumerate(counts)}
        rng = np.random.default_rng(self.seed)
        weights = np.arange(1, self.models + 1, dtype=float) ** -self.skew
        weights /= weights.sum()
        made = list[Request]()
        for row in self._rows():
            model = places[row.key] if row.key else int(rng.choice(self.models, p=weights))
            made += self._made(rng, row, share, model)
        return sorted(made, key=lambda request: request.at_s)

    def _rows(self) -> Iterator[Row]:
        return FORMATS[self.format](self.path, self.window, self.seed)

    def _place(self, number: int, keys: int) -> int:
        """The model of a key, by the number of its first request among all keys."""
        return number % self.models if self.assignment is Assignment.STRIPE else number * self.models // keys

    def _made(self, rng: np.random.Generator, row: Row, share: float, model: int) -> Iterator[Request]:
        count = row.count if share >= 1.0 else int(rng.binomial(row.count, share))
        table = TABLES[self.lengths]
        for _ in range(count):
            prompts, answers = table.draw(rng, 1) if row.prompt_tokens is None else (None, None)
            yield Request(
                at_s=row.at_s - self.window.from_s + row.span_s * float(rng.random()),
                model=model_name(model),
                prompt_tokens=max(1, int(prompts[0]) if prompts is not None else row.prompt_tokens or 0),
                answer_tokens=max(1, int(answers[0]) if answers is not None else row.answer_tokens or 0),
                tenant=row.tenant,
                session=row.session,
                blocks=row.blocks,
            )


def parse(text: str) -> tuple[str, Path]:
    """FORMAT:PATH. ArgumentTypeError, for a command line, names the formats."""
    name, colon, path = text.partition(":")
    if not colon or name not in FORMATS:
        raise ArgumentTypeError(f"a trace is FORMAT:PATH, with a format of {', '.join(FORMATS)}; not {text!r}")
    return name, Path(path)
