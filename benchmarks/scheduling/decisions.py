"""Decisions a second of the real policy on its real index, in a large cluster on paper: processor time of one core."""

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scheduling.fleet import Fleet
from benchmarks.scheduling.stream import WAKE_S, wakes

WORKERS, MODELS = 1_000, 10_000
BLOCKED = 4_000  # models that wait while every slot is taken
PACE_S = 0.002  # between requests


@dataclass(frozen=True, slots=True)
class Decisions:
    """Of one kind. A decision is one wake of the scheduler's loop: what has happened is told to the books, the policy
    asked, and the books told what it says. Where a wake brings several requests, each of them is one: then `count` is
    theirs, and `took_s` what all wakes took, those without a request among them."""

    kind: str
    count: int
    took_s: float
    p99_s: float  # of the wakes
    done: Mapping[str, int]
    wakes: int

    @property
    def per_s(self) -> float:
        """On one core."""
        return self.count / self.took_s

    def text(self) -> str:
        """A line."""
        done = ", ".join(f"{count} {name}" for name, count in self.done.items() if count)
        each = f"{self.count} in {self.wakes} wakes, {self.took_s:.2f} s of processor time"
        return f"{self.kind}: {self.per_s:.0f} decisions/s, P99 {self.p99_s * 1e6:.0f} µs; {each}; {done}"


def measure_decisions(count: int, workers: int = WORKERS, models: int = MODELS) -> list[Decisions]:
    """At least `count` decisions of each kind."""
    kinds: dict[str, Callable[[Fleet, int], int]] = {
        "warm": _warm,
        "cold": _cold,
        "evicting": _evicting,
        "backlog": _backlog,
        "mixed": _mixed,
    }
    return [_measured(kind, run, Fleet(workers, models, seed=1), count) for kind, run in kinds.items()]


def measure_books(workers: int = WORKERS, models: int = MODELS) -> int:
    """Bytes that the books take, their index above all, when every worker is full."""
    fleet = Fleet(workers, models, seed=1)
    fleet.fill(1.0, idle=True)
    return fleet.books_bytes()


def resident_bytes() -> int:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def total_per_s(kinds: Sequence[Decisions]) -> float:
    """Of all kinds, each for as many decisions."""
    return len(kinds) / sum(1 / one.per_s for one in kinds)


def _measured(kind: str, run: Callable[[Fleet, int], int], fleet: Fleet, count: int) -> Decisions:
    threshold = gc.get_threshold()
    decided = run(fleet, count)
    gc.set_threshold(*threshold)  # which the fleet has changed
    took_s = sorted(fleet.took_s)
    return Decisions(kind, decided, sum(took_s), took_s[int(len(took_s) * 0.99)], fleet.done, len(took_s))


def _warm(fleet: Fleet, count: int) -> int:
    """Every model that is asked for has a replica with slots."""
    fleet.fill(1.0, idle=True)
    names = fleet.resident()
    return _asked(fleet, count, lambda: fleet.rng.choice(names))


def _cold(fleet: Fleet, count: int) -> int:
    """No model that is asked for has a replica, and workers have memory free."""
    fleet.fill(0.3, idle=True)
    return _asked(fleet, count, iter(_absent(fleet)).__next__)


def _evicting(fleet: Fleet, count: int) -> int:
    """Memory is full of idle replicas, and any model may be asked for."""
    fleet.fill(1.0, idle=True)
    names = list(fleet.models)
    return _asked(fleet, count, lambda: fleet.rng.choice(names))


def _backlog(fleet: Fleet, count: int) -> int:
    """Every slot is taken, thousands of models wait, and answers end."""
    fleet.fill(1.0, idle=False)
    for name in _absent(fleet)[:BLOCKED]:
        fleet.ask(name)
    fleet.took_s.clear()
    while len(fleet.took_s) < count and fleet.step():
        pass
    return len(fleet.took_s)


def _mixed(fleet: Fleet, count: int) -> int:
    """What simulated markets ask, when memory is full: popular models have replicas with slots, or wait for more, and
    others' make way. What was asked before that settled is not counted."""
    fleet.fill(1.0, idle=True)
    stream = wakes(len(fleet.models), 3 * count)
    _played(fleet, stream, count)
    fleet.took_s.clear()
    fleet.done.clear()
    return _played(fleet, stream, count)


def _played(fleet: Fleet, stream: Iterator[list[int]], count: int) -> int:
    """So many requests, or a few more."""
    names, asked = list(fleet.models), 0
    while asked < count and (models := next(stream, None)) is not None:
        fleet.wake([names[number] for number in models], WAKE_S)
        asked += len(models)
    return asked


def _absent(fleet: Fleet) -> list[str]:
    resident = set(fleet.resident())
    names = [name for name in fleet.models if name not in resident]
    fleet.rng.shuffle(names)
    return names


def _asked(fleet: Fleet, count: int, name: Callable[[], str]) -> int:
    """Requests come at their pace, and what they bring about happens in between; each is a wake."""
    while len(fleet.took_s) < count:
        fleet.ask(name())
        fleet.advance(PACE_S)
    return len(fleet.took_s)
