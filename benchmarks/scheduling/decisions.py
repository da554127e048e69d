"""Decisions a second of the real policy on its real index, in a large cluster on paper: processor time of one core."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.scheduling.fleet import Fleet

WORKERS, MODELS = 1_000, 10_000
BLOCKED = 4_000  # models that wait while every slot is taken
PACE_S = 0.002  # between requests


@dataclass(frozen=True, slots=True)
class Decisions:
    """Of one kind. A decision is one wake of the scheduler's loop: what has happened is told to the books, the policy
    asked, and the books told what it says."""

    kind: str
    count: int
    took_s: float
    p99_s: float
    done: Mapping[str, int]

    @property
    def per_s(self) -> float:
        """On one core."""
        return self.count / self.took_s

    def text(self) -> str:
        """A line."""
        done = ", ".join(f"{count} {name}" for name, count in self.done.items() if count)
        return f"{self.kind}: {self.per_s:.0f} decisions/s, P99 {self.p99_s * 1e6:.0f} µs; {done}"


def measure_decisions(count: int, workers: int = WORKERS, models: int = MODELS) -> list[Decisions]:
    """At least `count` decisions of each kind."""
    kinds: dict[str, Callable[[Fleet, int], None]] = {
        "warm": _warm,
        "cold": _cold,
        "evicting": _evicting,
        "backlog": _backlog,
    }
    return [_measured(kind, run, Fleet(workers, models, seed=1), count) for kind, run in kinds.items()]


def measure_books(workers: int = WORKERS, models: int = MODELS) -> int:
    """Bytes that the books take, their index above all, when every worker is full."""
    fleet = Fleet(workers, models, seed=1)
    fleet.fill(1.0, idle=True)
    return fleet.books_bytes()


def total_per_s(kinds: Sequence[Decisions]) -> float:
    """Of all kinds, each for as many decisions."""
    return len(kinds) / sum(1 / one.per_s for one in kinds)


def _measured(kind: str, run: Callable[[Fleet, int], None], fleet: Fleet, count: int) -> Decisions:
    run(fleet, count)
    took_s = sorted(fleet.took_s)
    return Decisions(kind, len(took_s), sum(took_s), took_s[int(len(took_s) * 0.99)], fleet.done)


def _warm(fleet: Fleet, count: int) -> None:
    """Every model that is asked for has a replica with slots."""
    fleet.fill(1.0, idle=True)
    names = fleet.resident()
    _asked(fleet, count, lambda: fleet.rng.choice(names))


def _cold(fleet: Fleet, count: int) -> None:
    """No model that is asked for has a replica, and workers have memory free."""
    fleet.fill(0.3, idle=True)
    _asked(fleet, count, iter(_absent(fleet)).__next__)


def _evicting(fleet: Fleet, count: int) -> None:
    """Memory is full of idle replicas, and any model may be asked for."""
    fleet.fill(1.0, idle=True)
    names = list(fleet.models)
    _asked(fleet, count, lambda: fleet.rng.choice(names))


def _backlog(fleet: Fleet, count: int) -> None:
    """Every slot is taken, thousands of models wait, and answers end."""
    fleet.fill(1.0, idle=False)
    for name in _absent(fleet)[:BLOCKED]:
        fleet.ask(name)
    fleet.took_s.clear()
    while len(fleet.took_s) < count and fleet.step():
        pass


def _absent(fleet: Fleet) -> list[str]:
    resident = set(fleet.resident())
    names = [name for name in fleet.models if name not in resident]
    fleet.rng.shuffle(names)
    return names


def _asked(fleet: Fleet, count: int, name: Callable[[], str]) -> None:
    """Requests come at their pace, and what they bring about happens in between."""
    while len(fleet.took_s) < count:
        fleet.ask(name())
        fleet.advance(PACE_S)
