"""Figures of runs, and what policies differ by on the same seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sim.outcome import Outcome, Run

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run. Latencies are from arrival to the first token or the refusal, in seconds; GPU-seconds and loads are
    of the whole run, all else of the requests that are counted."""

    mean_s: float
    p50_s: float
    p99_s: float
    in_time: float  # share of those with a deadline whose first token met it; 1 if none has one
    refused: float
    lost: float
    moves: float
    loads: float
    busy_gpu_s: float
    loading_gpu_s: float
    held_gpu_s: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds, and the 95 % interval of that mean."""

    mean: float
    low: float
    high: float

    def text(self, digits: int = 3) -> str:
        """As a table shows it."""
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def figures(run: Run, from_s: float = 0.0) -> Figures:
    """Of the requests that came at `from_s` or later. ValueError if nobody of these was answered or refused."""
    counted = [one for one in run.outcomes if one.request.at_s >= from_s]
    latencies = [one.latency_s for one in counted if one.latency_s is not None]
    if not latencies:
        raise ValueError("no request has been answered or refused")
    return Figures(
        mean_s=float(np.mean(latencies)),
        p50_s=float(np.quantile(latencies, 0.5)),
        p99_s=float(np.quantile(latencies, 0.99)),
        in_time=_in_time(counted),
        refused=sum(one.refused is not None for one in counted),
        lost=sum(one.lost for one in counted),
        moves=sum(one.moves for one in counted),
        loads=len(run.loads),
        busy_gpu_s=run.busy_gpu_s,
        loading_gpu_s=sum(load.ready_s - load.began_s for load in run.loads),
        held_gpu_s=run.held_gpu_s,
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


def ratio(first: Sequence[float], other: Sequence[float]) -> Interval:
    """How many times the mean of `first` that of `other` is, seeds being resampled in pairs."""
    a, b, rng = np.array(first), np.array(other), np.random.default_rng(0)
    chosen = rng.integers(0, len(a), (RESAMPLES, len(a)))
    low, high = np.quantile(b[chosen].mean(1) / a[chosen].mean(1), (0.025, 0.975))
    return Interval(float(b.mean() / a.mean()), float(low), float(high))


def column(rows: Sequence[Figures], key: str) -> list[float]:
    """One figure, seed by seed."""
    return [float(getattr(one, key)) for one in rows]


def gap_closed(rows: Mapping[str, Sequence[Figures]], key: str, ours: str, worst: str, bound: str) -> float:
    """How much of the way from `worst` to `bound` we are: 1 is all of it."""
    means = {name: float(np.mean(column(rows[name], key))) for name in (ours, worst, bound)}
    return (means[worst] - means[ours]) / (means[worst] - means[bound])


COUNTS = ("refused", "lost", "moves", "loads", "busy_gpu_s", "loading_gpu_s", "held_gpu_s")


def table(rows: Mapping[str, Sequence[Figures]]) -> str:
    """A row for each policy, its figures in the order of the seeds; the first is what the others are compared with."""
    first = next(iter(rows.values()))
    titles = ("mean s", "p50 s", "p99 s", "p99 more than first", "p99 / first")
    lines = [" ".join([f"{'policy':22}", *(f"{one:>24}" for one in titles), *(f"{one:>13}" for one in COUNTS)])]
    for name, each in rows.items():
        cells = [interval(column(each, key)) for key in ("mean_s", "p50_s", "p99_s")]
        p99s = column(first, "p99_s"), column(each, "p99_s")
        cells += [differences(*p99s), ratio(*p99s)]
        counts = [float(np.mean(column(each, key))) for key in COUNTS]
        shown = [*(f"{one.text():>24}" for one in cells), *(f"{one:13.1f}" for one in counts)]
        lines.append(" ".join([f"{name:22}", *shown]))
    return "\n".join(lines)


def _in_time(counted: Sequence[Outcome]) -> float:
    asked = [one for one in counted if one.request.deadline_s is not None]
    met = [one for one in asked if one.refused is None and (one.latency_s or np.inf) <= (one.request.deadline_s or 0.0)]
    return len(met) / len(asked) if asked else 1.0
