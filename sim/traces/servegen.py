"""ServeGen (NSDI'26): for each client of a model, what its requests are like in every window of ten minutes.

A directory such as data/language/m-large has `chunk-<i>-trace.csv`, without a header: the window's begin in seconds,
rate a second, the gaps' cv, Gamma, Weibull or nothing, and the law's two parameters; and `chunk-<i>-dataset.json`: by
begin, the shares of input_tokens and output_tokens, each a Python dict written into a string. Requests are drawn from
that, equally for equal seeds. A client is a key, so that clients stand for models.
"""

import ast
import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from sim.arrivals import Gaps, Law, arrivals
from sim.lengths import Ints
from sim.traces.row import BadTrace, Row, Window
from sim.traces.table import Line, open_text

CHUNK = re.compile(r"chunk-(\d+)-trace\.csv$")
COLUMNS = ("begin", "rate", "cv", "law", "first", "second")
WINDOW_S = 600.0


def rows(path: Path, window: Window, seed: int) -> Iterator[Row]:
    """Client by client."""
    chunks = {int(match[1]): file for file in path.glob("chunk-*") if (match := CHUNK.match(file.name))}
    if not chunks:
        raise BadTrace(f"{path} has no file chunk-0-trace.csv, or of another client")
    for client, file in sorted(chunks.items()):
        yield from _client(file, str(client), window, np.random.default_rng([seed, client]))


def _client(file: Path, client: str, window: Window, rng: np.random.Generator) -> Iterator[Row]:
    data = _shares(file.with_name(f"chunk-{client}-dataset.json"))
    with open_text(file) as text:
        table = csv.reader(text)
        for fields in table:
            line = Line(file, table.line_num, dict(zip(COLUMNS, fields, strict=False)))
            begin_s, rate = line.number_of("begin"), line.number_of("rate")
            if rate and begin_s < window.from_s + window.for_s and begin_s + WINDOW_S > window.from_s:
                times = begin_s + arrivals(rng, _gaps(line), np.array([rate]), WINDOW_S)
                prompts, answers = (_draw(rng, data, begin_s, kind, len(times)) for kind in ("input", "output"))
                for at_s, prompt, answer in zip(times, prompts, answers, strict=True):
                    if window.holds(at_s):
                        yield Row(float(at_s), client, 0.0, 1, int(prompt), int(answer), tenant=client)


def _gaps(line: Line) -> Gaps:
    law = line.text("law").lower()
    if law not in list(Law):
        raise line.bad(f"gaps are of Gamma or Weibull, not of {line.text('law')!r}")
    return Gaps(Law(law), line.number_of("cv"))


Shares = Mapping[float, Mapping[str, Mapping[int, float]]]  # by begin and kind: of each length


def _shares(path: Path) -> Shares:
    with open_text(path) as file:
        try:
            found = {
                float(begin): {kind: ast.literal_eval(shares) for kind, shares in kinds.items()}
                for begin, kinds in json.load(file).items()
            }
        except (AttributeError, SyntaxError, ValueError) as error:
            raise BadTrace(f"{path} has no shares of lengths by window: {error!r}") from error
    return {begin: kinds for begin, kinds in sorted(found.items()) if all(kinds.values())}


def _draw(rng: np.random.Generator, data: Shares, begin_s: float, kind: str, count: int) -> Ints:
    """Lengths by the shares of the last window that has some, or of the first."""
    before = [begin for begin in data if begin <= begin_s] or list(data)[:1]
    if not before or f"{kind}_tokens" not in data[before[-1]]:
        raise BadTrace(f"no window of a client has shares of {kind}_tokens")
    shares = data[before[-1]][f"{kind}_tokens"]
    lengths, weights = np.array(list(shares), dtype=np.int64), np.array(list(shares.values()))
    return np.asarray(rng.choice(lengths, count, p=weights / weights.sum()), dtype=np.int64)
