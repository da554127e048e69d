"""Every benchmark, one after the other: what the table says of each."""

import importlib.util
import sys

from benchmarks.__main__ import PARTS, run


def of(code: str, longest_s: float = 60.0) -> list[str]:
    """The rows of a benchmark that is this code, without how long it took."""
    return [row.split(" in ")[0] for row in run("one", [sys.executable, "-c", code], longest_s).rows()]


def test_a_figure_is_a_row_those_of_parts_too() -> None:
    title, first, second = of('print("words"); print(\'{"load_s": 2, "real": {"p99_s": 0.5}, "note": "x"}\')')
    assert title.split() == ["one", "measured"]
    assert [row.split() for row in (first, second)] == [["load_s", "2"], ["real.p99_s", "0.5"]]


def test_what_fails_and_what_takes_too_long_are_told_apart() -> None:
    assert of("raise SystemExit(1)")[0].split() == ["one", "failed", "with", "1"]
    assert of("import time; print('began', flush=True); time.sleep(600)", 0.5)[0].split()[1:] == ["took", "too", "long"]


def test_every_benchmark_is_there() -> None:
    assert all(importlib.util.find_spec(f"benchmarks.{part.name}") for part in PARTS)
