"""What the benchmark says: lines for people, and figures for machines."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report import say
from benchmarks.scheduling.decisions import Decisions, total_per_s
from benchmarks.scheduling.experiments import MARKET, PAPER, Experiment
from benchmarks.scheduling.speed import Speed


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; None and empty: left out."""

    speed: Speed | None = None
    decisions: Sequence[Decisions] = ()
    experiments: Sequence[Experiment] = ()

    def json(self) -> str:
        """One object: how many times ours the paper's policy takes, and how fast the simulator is."""
        figures: dict[str, float] = {}
        if self.decisions:
            figures["decisions_per_s"] = total_per_s(self.decisions)
        if self.speed:
            figures["simulated_vs_real_time"] = self.speed.times_real
        for one in self.experiments:
            figures |= _json(one)
        return json.dumps({name: round(value, 4) for name, value in figures.items()})


def _json(one: Experiment) -> dict[str, float]:
    name = one.scenario.replace("-", "_").replace(".", "_")
    found = {f"p99_vs_paper_{name}": one.times_ours(PAPER, "p99_s").mean}
    found[f"mean_vs_paper_{name}"] = one.times_ours(PAPER, "mean_s").mean
    if one.scenario == MARKET:
        found |= {f"{key}_gap_closed_{name}": one.gap_closed(f"{key}_s") for key in ("p99", "mean")}
    return found


def say_figures(figures: Figures) -> None:
    """What is not said yet."""
    for kind in figures.decisions:
        say(kind.text())
    if figures.speed:
        say(figures.speed.text())
    for one in figures.experiments:
        mean, p99 = one.times_ours(PAPER, "mean_s"), one.times_ours(PAPER, "p99_s")
        say(f"{one.scenario}: the paper's policy takes {mean.text(2)} times our mean, {p99.text(2)} times our P99")
