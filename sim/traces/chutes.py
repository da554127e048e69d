"""Chutes (A Year in LLM Serving, VLDB'27): every call of a market of some nine thousand models.

The trace is one Parquet file of 91 GB. What is read here is an export of a part of it to CSV, with its columns:
chute_id (the model), user_id and rehash_round (together the user), started_at (since the first request: seconds, or
as `1 day 02:03:04.5`), it and ot (tokens in and out). Calls without tokens, such as of image models, are left out.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sim.traces.row import BadTrace, Row, Window
from sim.traces.table import Line, lines

COLUMNS = ("chute_id", "user_id", "rehash_round", "started_at", "it", "ot")
ELAPSED = re.compile(r"(?:(\d+) days? ?)?(?:(\d+):(\d\d):(\d\d(?:\.\d+)?))?$")


def rows(path: Path, window: Window, seed: int) -> Iterator[Row]:
    """One a call."""
    if path.suffix == ".parquet":
        raise BadTrace(f"{path} is Parquet: export the hours that you want to CSV, for example with DuckDB's COPY")
    for line in lines(path, COLUMNS):
        at_s = _elapsed_s(line)
        if window.holds(at_s) and line.text("it") and line.text("ot"):
            yield Row(
                at_s,
                line.text("chute_id"),
                prompt_tokens=line.count("it"),
                answer_tokens=line.count("ot"),
                tenant=f"{line.text('user_id')}/{line.text('rehash_round')}",
            )


def _elapsed_s(line: Line) -> float:
    text = line.text("started_at")
    match = ELAPSED.match(text) if text else None
    if match is None:
        return line.number_of("started_at")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 86_400.0 * days + 3600.0 * hours + 60.0 * minutes + seconds
