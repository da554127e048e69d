"""Synthetic workloads, parameterised from the published statistics of real ones; no row of any trace is copied.

The same Workload gives the same requests, to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sim.arrivals import POISSON, STEADY, Floats, Gaps, Swings, arrivals
from sim.lengths import TABLES, Ints, Lengths
from sim.request import Request
from sim.sessions import Sessions, blocks_of

TENANT_SKEW = 1.2  # Zipf exponent of how many models each tenant has


class Scope(StrEnum):
    """What a burst is of: published evaluations differ, and it decides who looks good."""

    PER_MODEL = "per_model"  # each model's requests come in bursts of their own
    AGGREGATE = "aggregate"  # all requests are one process, each of a model drawn anew


@dataclass(frozen=True, slots=True)
class Workload:
    """`rps` is the mean rate of all models together, in requests a second; `skew` the Zipf exponent of their shares."""

    models: int
    rps: float
    duration_s: float
    seed: int
    skew: float = 0.0
    gaps: Gaps = POISSON
    scope: Scope = Scope.PER_MODEL
    swings: Swings = STEADY
    lengths: tuple[str, ...] = ("azure-conv",)  # of TABLES; models take them in turn
    prompt_spread: float = 0.0  # standard deviation of the logarithm of a model's own factor
    answer_spread: float = 0.0
    context_tokens: int = 8192  # prompt and answer are cut to it
    tenants: int = 1
    together: bool = False  # whether all models of a tenant are asked in the same spells
    sessions: Sessions | None = None
    deadline_s: float | None = None
    priorities: tuple[float, ...] = (1.0,)  # shares of the bands 0, 1, ...

    def requests(self) -> list[Request]:
        """In order of arrival."""
        rng = np.random.default_rng(self.seed)
        shares, owners = self.shares(rng), self._owners(rng)
        times, models = self._arrivals(rng, shares, owners)
        prompts, answers = self._lengths(rng, models)
        bands = rng.choice(len(self.priorities), len(times), p=np.array(self.priorities) / sum(self.priorities))
        requests = [
            Request(
                at_s=float(times[i]),
                model=model_name(int(models[i])),
                prompt_tokens=int(prompts[i]),
                answer_tokens=int(answers[i]),
                tenant=f"tenant-{owners[models[i]]}",
                deadline_s=self.deadline_s,
                priority=int(bands[i]),
            )
            for i in range(len(times))
        ]
        return blocks_of(rng, requests, self.sessions, self.context_tokens) if self.sessions else requests

    def shares(self, rng: np.random.Generator) -> Floats:
        """Each model's share of the requests. Which model is popular is drawn, so that names tell nothing."""
        weights = np.arange(1, self.models + 1, dtype=float) ** -self.skew
        return rng.permutation(weights / weights.sum())

    def _arrivals(self, rng: np.random.Generator, shares: Floats, owners: Ints) -> tuple[Floats, Ints]:
        windows = max(1, int(np.ceil(self.duration_s / self.swings.window_s)))
        swings = np.stack([self.swings.factors(rng, windows) for _ in range(self.models)])
        spelt = owners if self.together else np.arange(self.models)
        spells = np.stack([self.swings.spells(rng, windows) for _ in range(int(spelt.max()) + 1)])
        rates = shares[:, None] * swings * spells[spelt]
        rates *= self.rps * windows / rates.sum()
        if self.scope is Scope.AGGREGATE:
            times = arrivals(rng, self.gaps, rates.sum(0), self.swings.window_s)
            models = _drawn(rng, rates, (times // self.swings.window_s).astype(np.int64))
        else:
            each = [arrivals(rng, self.gaps, one, self.swings.window_s) for one in rates]
            times = np.concatenate(each)
            models = np.repeat(np.arange(self.models), [len(one) for one in each])
        order = np.argsort(times, kind="stable")
        order = order[times[order] < self.duration_s]
        return times[order], models[order]

    def _lengths(self, rng: np.random.Generator, models: Ints) -> tuple[Ints, Ints]:
        tables: Sequence[Lengths] = [TABLES[name] for name in self.lengths]
        prompts, answers = np.empty(len(models), dtype=np.int64), np.empty(len(models), dtype=np.int64)
        for index, table in enumerate(tables):
            mine = models % len(tables) == index
            prompts[mine], answers[mine] = table.draw(rng, int(mine.sum()))
        scale_prompt = np.exp(rng.normal(0.0, self.prompt_spread, self.models))
        scale_answer = np.exp(rng.normal(0.0, self.answer_spread, self.models))
        prompts = np.clip(np.rint(prompts * scale_prompt[models]), 1, self.context_tokens - 1).astype(np.int64)
        answers = np.clip(np.rint(answers * scale_answer[models]), 1, self.context_tokens - prompts).astype(np.int64)
        return prompts, answers

    def _owners(self, rng: np.random.Generator) -> Ints:
        """The tenant of each model; the first has most of them."""
        weights = np.arange(1, self.tenants + 1, dtype=float) ** -TENANT_SKEW
        return rng.choice(self.tenants, self.models, p=weights / weights.sum())


def model_name(index: int) -> str:
    """Of the model of a workload."""
    return f"model-{index:05d}"


def _drawn(rng: np.random.Generator, rates: Floats, windows: Ints) -> Ints:
    """A model for each request, by the rates [models, windows] of its window."""
    models = np.empty(len(windows), dtype=np.int64)
    for window in np.unique(windows):
        mine = windows == window
        share = rates[:, window] / rates[:, window].sum()
        models[mine] = rng.choice(len(rates), int(mine.sum()), p=share)
    return models
