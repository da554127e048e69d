"""CSV files with a header, plain or gzipped, row by row; every complaint names the file and the line."""

import csv
import gzip
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

from sim.traces.row import BadTrace


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file, by column."""

    path: Path
    number: int
    fields: Mapping[str, str]

    def text(self, column: str) -> str:
        """What stands there; BadTrace if the line ends before."""
        value = self.fields.get(column)
        if value is None:
            raise self.bad(f"the line ends before the column {column!r}")
        return value

    def number_of(self, column: str) -> float:
        """BadTrace if it is none."""
        text = self.text(column)
        try:
            return float(text)
        except ValueError:
            raise self.bad(f"the column {column!r} has no number, but {text!r}") from None

    def count(self, column: str) -> int:
        """A whole number; BadTrace if it is none, or negative."""
        value = self.number_of(column)
        if value < 0 or value != int(value):
            raise self.bad(f"the column {column!r} has no count, but {self.text(column)!r}")
        return int(value)

    def bad(self, complaint: str) -> BadTrace:
        """To be raised."""
        return BadTrace(f"{self.path}, line {self.number}: {complaint}")


def open_text(path: Path) -> TextIOWrapper:
    """BadTrace if there is no such file."""
    try:
        return TextIOWrapper(gzip.open(path) if path.suffix == ".gz" else path.open("rb"), encoding="utf-8-sig")
    except OSError as error:
        raise BadTrace(f"{path} cannot be read: {error.strerror}") from error


def lines(path: Path, columns: Sequence[str]) -> Iterator[Line]:
    """Of a file whose header has at least these columns."""
    with open_text(path) as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if missing := [column for column in columns if column not in header]:
            raise BadTrace(f"{path}, line 1: no column is called {', '.join(map(repr, missing))}")
        for row in rows:
            if row:
                yield Line(path, rows.line_num, dict(zip(header, row, strict=False)))
