"""Azure LLM inference 2023 (Splitwise, ISCA'24) and 2024 (DynamoLLM): TIMESTAMP, ContextTokens, GeneratedTokens; one
service a file, which may stand for one model or, drawn, for many."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from sim.traces.row import Row, Window
from sim.traces.table import Line, lines

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def rows(path: Path, window: Window, seed: int) -> Iterator[Row]:
    """One a request; the trace begins with the first."""
    begin: datetime | None = None
    for line in lines(path, COLUMNS):
        moment = _moment(line)
        begin = begin or moment
        at_s = (moment - begin).total_seconds()
        if window.holds(at_s):
            yield Row(at_s, prompt_tokens=line.count("ContextTokens"), answer_tokens=line.count("GeneratedTokens"))


def _moment(line: Line) -> datetime:
    text = line.text("TIMESTAMP")
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise line.bad(f"the column 'TIMESTAMP' has no moment, but {text!r}") from None
