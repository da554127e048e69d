"""What a workload is like, beside what it was to be like."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.arrivals import Floats
from sim.lengths import Lengths
from sim.request import Request

SPANS_S = (1.0, 10.0, 60.0, 300.0)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of one workload or trace. `dispersion` is variance over mean of the counts in spans of SPANS_S: 1 is Poisson."""

    requests: int
    duration_s: float
    rps: float
    dispersion: tuple[float, ...]
    gap_cv: float  # of all requests together
    model_gap_cv: float  # the median over models, weighted by their requests
    models: int  # that were asked
    top_share: float  # of the most popular one
    top_ten_share: float
    zipf: float  # exponent fitted to the counts by maximum likelihood
    prompt_mean: float
    answer_mean: float
    reuse: float  # share of prompt blocks that an endless cache would have had


def statistics(requests: Sequence[Request], models: int = 0) -> Statistics:
    """Of requests in order of arrival; `models` counts those that nobody asked, too."""
    times = np.array([request.at_s for request in requests])
    counts = sorted(Counter(request.model for request in requests).values(), reverse=True)
    total, duration_s = len(requests), float(times[-1] - times[0]) if len(times) > 1 else 0.0
    return Statistics(
        requests=total,
        duration_s=duration_s,
        rps=total / duration_s if duration_s else math.nan,
        dispersion=tuple(dispersion(times, span_s) for span_s in SPANS_S),
        gap_cv=gap_cv(times),
        model_gap_cv=_model_gap_cv(requests),
        models=len(counts),
        top_share=counts[0] / total if total else math.nan,
        top_ten_share=sum(counts[:10]) / total if total else math.nan,
        zipf=zipf(counts, max(models, len(counts))),
        prompt_mean=float(np.mean([request.prompt_tokens for request in requests])) if total else math.nan,
        answer_mean=float(np.mean([request.answer_tokens for request in requests])) if total else math.nan,
        reuse=reuse(requests),
    )


def fit(requests: Sequence[Request], lengths: Lengths) -> tuple[float, float]:
    """Kolmogorov-Smirnov distances of prompts and of answers to a table."""
    prompts = np.array([request.prompt_tokens for request in requests])
    answers = np.array([request.answer_tokens for request in requests])
    return lengths.prompt.distance(prompts), lengths.answer.distance(answers)


def dispersion(times: Floats, span_s: float) -> float:
    """Variance over mean of how many come in each whole span."""
    spans = int((times[-1] - times[0]) // span_s) if len(times) else 0
    if spans < 2:
        return math.nan
    places = ((times - times[0]) // span_s).astype(np.int64)
    counts = np.bincount(places[places < spans], minlength=spans)
    return float(counts.var() / counts.mean())


def gap_cv(times: Floats) -> float:
    """Standard deviation of the gaps over their mean."""
    gaps = np.diff(times)
    return float(gaps.std() / gaps.mean()) if len(gaps) > 1 and gaps.mean() > 0 else math.nan


def _model_gap_cv(requests: Sequence[Request]) -> float:
    times: dict[str, list[float]] = {}
    for request in requests:
        times.setdefault(request.model, []).append(request.at_s)
    each = sorted((gap_cv(np.array(one)), len(one)) for one in times.values() if len(one) > 2)
    if not each:
        return math.nan
    weights = np.cumsum([weight for _, weight in each])
    return each[int(np.searchsorted(weights, weights[-1] / 2.0))][0]


def zipf(counts: Sequence[int], models: int) -> float:
    """The exponent s in [0, 5] under which ranks with these counts, the largest first, are likeliest."""
    if models < 2 or not counts:
        return 0.0
    logs, weights = np.log(np.arange(1, models + 1)), np.array(counts, dtype=float)
    mean = float((weights * logs[: len(counts)]).sum() / weights.sum())
    low, high = 0.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2.0
        chances = np.exp(-middle * logs)
        expected = float((chances * logs).sum() / chances.sum())
        low, high = (middle, high) if expected > mean else (low, middle)
    return (low + high) / 2.0


def reuse(requests: Sequence[Request]) -> float:
    """Share of prompt blocks that some earlier prompt has had."""
    seen, found, total = set[int](), 0, 0
    for request in requests:
        found += sum(block in seen for block in request.blocks)
        total += len(request.blocks)
        seen.update(request.blocks)
    return found / total if total else 0.0
