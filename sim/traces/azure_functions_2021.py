"""Azure Functions 2021 (SOSP'21): every call of two weeks. Columns: app, func, end_timestamp, duration, in seconds; a
call came when it ended, less its duration."""

from collections.abc import Iterator
from pathlib import Path

from sim.traces.row import Row, Window
from sim.traces.table import lines

COLUMNS = ("app", "func", "end_timestamp", "duration")


def rows(path: Path, window: Window, seed: int) -> Iterator[Row]:
    """One a call, in order of their ends."""
    for line in lines(path, COLUMNS):
        at_s = line.number_of("end_timestamp") - line.number_of("duration")
        if window.holds(at_s):
            yield Row(at_s, f"{line.text('app')}/{line.text('func')}", tenant=line.text("app"))
