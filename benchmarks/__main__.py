"""python -m benchmarks: each benchmark as a process of its own, in bounded time, and one table of their figures."""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.report import say

LONGEST_S = {False: 3600.0, True: 600.0}  # that one may take; True: with --quick


@dataclass(frozen=True, slots=True)
class Part:
    """A benchmark's module below `benchmarks`, and what it is given beside --json; `quick` is given with --quick."""

    name: str
    given: tuple[str, ...] = ()
    quick: tuple[str, ...] = ("--quick",)

    def command(self, *, quick: bool) -> list[str]:
        """Its command line."""
        given = self.quick if quick else self.given
        return [sys.executable, "-m", f"benchmarks.{self.name}", "--json", *given]


PARTS = (
    Part("serving"),
    Part("loading"),
    Part("engine"),
    Part("scheduling"),
    Part("scheduling.overload"),
    Part("scheduling.takeover"),
    Part("scheduling.keeping", quick=("--seeds", "1", "--hours", "1")),
    Part("scheduling.calibration", ("--workers", "2"), ("--workers", "2", "--quick")),
    Part("migration"),
)


@dataclass(slots=True)
class Ran:
    """What came of one: its exit code, negative where it was ended for taking too long, and its figures."""

    name: str
    code: int = 0
    took_s: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)

    def rows(self) -> Iterator[str]:
        """Of the table: a figure each, or that there are none."""
        end = "measured" if self.code == 0 else "took too long" if self.code < 0 else f"failed with {self.code}"
        yield f"{self.name:<26}{end} in {self.took_s:.0f} s"
        for name, value in self.figures.items():
            yield f"  {name:<48}{value:>14.4g}"


def run(name: str, command: Sequence[str], longest_s: float) -> Ran:
    """Runs a benchmark, passes on what it says, and keeps the figures of its last line, if that is an object."""
    ran, began_s, last = Ran(name), time.perf_counter(), ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        alarm = threading.Timer(longest_s, process.kill)
        alarm.start()
        for line in process.stdout or ():
            last = line.strip() or last
            say(line.rstrip())
        ran.code = process.wait()
        alarm.cancel()
    ran.took_s = time.perf_counter() - began_s
    if last.startswith("{"):
        ran.figures = dict(numbers(json.loads(last)))
    return ran


def numbers(found: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The figures of an object, those of objects in it by both names."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            yield prefix + name, float(value)


def main() -> None:
    """Exit codes: 0 all were measured, 1 not all."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("--quick", action="store_true", help="the small form of each")
    made.add_argument("--only", choices=[part.name for part in PARTS], action="append", help="may be repeated")
    options = made.parse_args()
    chosen = [part for part in PARTS if not options.only or part.name in options.only]
    all_ran = [run(part.name, part.command(quick=options.quick), LONGEST_S[options.quick]) for part in chosen]
    say("")
    for row in (row for ran in all_ran for row in ran.rows()):
        say(row)
    sys.exit(any(ran.code for ran in all_ran))


if __name__ == "__main__":
    main()
