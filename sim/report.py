"""Figures of runs, and what policies differ by on the same seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.outcome import Run

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run. Latencies are from arrival to the first token or the refusal, in seconds."""

    mean_s: float
    p50_s: float
    p99_s: float
    refused: float
    lost: float
    loads: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds, and the 95 % interval of that mean."""

    mean: float
    low: float
    high: float


def figures(run: Run) -> Figures:
    """ValueError if nobody was answered or refused."""
    latencies = [one.latency_s for one in run.outcomes if one.latency_s is not None]
    if not latencies:
        raise ValueError("no request has been answered or refused")
    return Figures(
        mean_s=float(np.mean(latencies)),
        p50_s=float(np.quantile(latencies, 0.5)),
        p99_s=float(np.quantile(latencies, 0.99)),
        refused=sum(one.refused is not None for one in run.outcomes),
        lost=sum(one.lost for one in run.outcomes),
        loads=len(run.loads),
    )


def interval(values: Sequence[float]) -> Interval:
    """By the percentiles of resampled means; the resampling is the same every time."""
    data, rng = np.array(values), np.random.default_rng(0)
    means = data[rng.integers(0, len(data), (RESAMPLES, len(data)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(data.mean()), float(low), float(high))


def differences(first: Sequence[float], other: Sequence[float]) -> Interval:
    """By how much `other` exceeds `first`, seed by seed: what both have of a seed's luck cancels out."""
    return interval([b - a for a, b in zip(first, other, strict=True)])


def table(runs: dict[str, list[Run]]) -> str:
    """A row for each policy, its runs in the order of the seeds; the first is what the others are compared with."""
    rows = {name: [figures(run) for run in each] for name, each in runs.items()}
    first = next(iter(rows.values()))
    lines = [
        f"{'policy':20} {'mean s':>24} {'p50 s':>24} {'p99 s':>24} {'p99 more than first':>26} refused  lost  loads"
    ]
    for name, each in rows.items():
        columns = [interval([getattr(one, key) for one in each]) for key in ("mean_s", "p50_s", "p99_s")]
        more = differences([one.p99_s for one in first], [one.p99_s for one in each])
        counts = [float(np.mean([getattr(one, key) for one in each])) for key in ("refused", "lost", "loads")]
        cells = " ".join(f"{_show(column):>24}" for column in columns)
        lines.append(f"{name:20} {cells} {_show(more):>26} {counts[0]:7.1f} {counts[1]:5.1f} {counts[2]:6.1f}")
    return "\n".join(lines)


def _show(one: Interval) -> str:
    return f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]"
