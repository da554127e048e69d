"""Azure Functions 2019 (Serverless in the Wild, ATC'20): how often each function was called in each minute of a day.

A file is a day, `invocations_per_function_md.anon.d01.csv`, and a directory several: HashOwner, HashApp,
HashFunction, Trigger, and the columns 1 to 1440. Calls come somewhere within their minute.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sim.traces.row import BadTrace, Row, Window
from sim.traces.table import lines

COLUMNS = ("HashOwner", "HashApp", "HashFunction", "Trigger", "1", "1440")
DAY = re.compile(r"invocations_per_function_md\.anon\.d(\d+)\.csv(\.gz)?$")
MINUTE_S, DAY_S = 60.0, 86_400.0


def rows(path: Path, window: Window, seed: int) -> Iterator[Row]:
    """One for each minute in which a function was called, function by function. A file by itself is the first day."""
    days = {_day(file): file for file in path.iterdir() if DAY.match(file.name)} if path.is_dir() else {1: path}
    if not days:
        raise BadTrace(f"{path} has no file invocations_per_function_md.anon.d01.csv, or of another day")
    for day, file in sorted(days.items()):
        starts_s = {str(minute): (day - 1) * DAY_S + (minute - 1) * MINUTE_S for minute in range(1, 1441)}
        wanted = {minute: at_s for minute, at_s in starts_s.items() if window.holds(at_s)}
        for line in lines(file, COLUMNS) if wanted else ():
            key, owner = f"{line.text('HashApp')}/{line.text('HashFunction')}", line.text("HashOwner")
            for minute, at_s in wanted.items():
                if line.text(minute) != "0":
                    yield Row(at_s, key, MINUTE_S, line.count(minute), tenant=owner)


def _day(file: Path) -> int:
    match = DAY.match(file.name)
    return int(match[1]) if match else 0
