"""Drawings of runs, as SVG files that are the same for the same runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from sim.compare import Sample
from sim.outcome import Run


def draw(samples: Mapping[str, Sequence[Sample]], directory: Path) -> None:
    """latency.svg, of all seeds together, and timeline-<policy>.svg, of the first seed."""
    directory.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "whimbrel"}):
        _save(latencies(samples), directory / "latency.svg")
        for name, each in samples.items():
            if run := each[0].run:
                _save(timeline(run), directory / f"timeline-{name}.svg")


def latencies(samples: Mapping[str, Sequence[Sample]]) -> Figure:
    """The share of requests that had their first token, or their refusal, within so many seconds."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, each in samples.items():
        seen = np.sort(np.concatenate([one.latencies for one in each]))
        axes.plot(seen, np.arange(1, len(seen) + 1) / len(seen), label=name)
    axes.set(xscale="log", xlabel="seconds from arrival to the first token", ylabel="share of requests", ylim=(0, 1))
    axes.legend()
    return figure


def timeline(run: Run) -> Figure:
    """Each worker's loads, in red, and the requests that it finished, in grey, from their first place to their end."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    workers = sorted({one.worker_id for one in run.outcomes if one.worker_id} | {load.worker_id for load in run.loads})
    for row, worker in enumerate(workers):
        served = [one for one in run.outcomes if one.worker_id == worker and one.finished_s is not None]
        spans = [(one.start_s or 0.0, (one.finished_s or 0.0) - (one.start_s or 0.0)) for one in served]
        loads = [(one.began_s, one.ready_s - one.began_s) for one in run.loads if one.worker_id == worker]
        axes.broken_barh(spans, (row - 0.4, 0.5), color="0.6")
        axes.broken_barh(loads, (row + 0.1, 0.3), color="tab:red")
    axes.set(yticks=range(len(workers)), yticklabels=workers, xlabel="seconds", title=run.policy)
    return figure


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
