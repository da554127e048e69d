"""What the benchmark says: lines for people, and figures for machines."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report import say
from benchmarks.scheduling.decisions import Decisions, total_per_s
from benchmarks.scheduling.dispatch import Dispatch
from benchmarks.scheduling.experiments import MARKET, Experiment
from benchmarks.scheduling.speed import Speed


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; None and empty: left out."""

    dispatch: Dispatch | None = None
    decisions: Sequence[Decisions] = ()
    resident_bytes: int = 0  # once all decisions were made
    books_bytes: int = 0
    speed: Speed | None = None
    experiments: Sequence[Experiment] = ()

    def json(self) -> str:
        """One object: how many times ours the paper's policy takes, and how fast we decide, dispatch and simulate."""
        figures: dict[str, float] = {}
        if self.dispatch:
            figures["dispatch_scheduler_p99_ms"] = self.dispatch.inside_ms(0.99)
            figures["dispatch_processor_p99_ms"] = self.dispatch.processor_ms(0.99)
            figures["dispatch_end_to_end_p99_ms"] = self.dispatch.whole_ms(0.99)
        if self.decisions:
            figures["decisions_per_s"] = total_per_s(self.decisions)
            figures["books_mb"] = self.books_bytes / 1e6
            figures["resident_mb"] = self.resident_bytes / 1e6
        if self.speed:
            figures["simulated_vs_real_time"] = self.speed.times_real
        for one in self.experiments:
            figures |= _json(one)
        return json.dumps({name: round(value, 4) for name, value in figures.items()})


def _json(one: Experiment) -> dict[str, float]:
    name = one.scenario.replace("-", "_").replace(".", "_")
    found = {f"{key.removesuffix('_s')}_vs_paper_{name}": times.mean for key, times in one.times_papers().items()}
    if one.scenario == MARKET:
        found |= {f"{key.removesuffix('_s')}_gap_closed_{name}": gap for key, gap in one.gaps_closed().items()}
    return found


def say_figures(figures: Figures) -> None:
    """What is not said yet."""
    if figures.dispatch:
        say(figures.dispatch.text())
    for kind in figures.decisions:
        say(kind.text())
    if figures.books_bytes:
        resident = f"; the process, with the cluster on paper: {figures.resident_bytes / 1e6:.0f} MB"
        say(f"books: {figures.books_bytes / 1e6:.1f} MB{resident}")
    if figures.speed:
        say(figures.speed.text())
    for one in figures.experiments:
        for key, times in one.times_papers().items():
            say(f"{one.scenario}: the paper's policy takes {times.text(2)} times our {key.removesuffix('_s')}")
