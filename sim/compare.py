"""Policies side by side: each on the same requests and failures, seed by seed, in as many processes as one likes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sim.arrivals import Floats
from sim.bounds.no_load_time import without_load_time
from sim.outcome import Run
from sim.policies import POLICIES
from sim.processes import spread
from sim.report import Figures, figures
from sim.run import simulate
from sim.scenarios import SCENARIOS, Scenario
from sim.traces.replay import Replay

OURS = "whimbrel"
FLOOR = "no-load-time"  # ours, where loads take none: what is left is queueing


@dataclass(frozen=True, slots=True)
class Sample:
    """What is kept of a run: its figures and latencies, in seconds; all of it only for the first seed's timeline."""

    figures: Figures
    latencies: Floats
    run: Run | None


def compare(
    workload: str, names: Sequence[str], seeds: int, jobs: int = 1, trace: Replay | None = None
) -> dict[str, list[Sample]]:
    """Each policy's samples in the order of the seeds, however many processes there are. A trace, if there is one, is
    asked instead of the workload."""
    by_seed = dict(spread(partial(_of_seed, workload, names, trace), range(seeds), jobs))
    return {name: [by_seed[seed][i] for seed in range(seeds)] for i, name in enumerate(names)}


def of_seed(scenario: Scenario, names: Sequence[str], seed: int, trace: Replay | None = None) -> list[Sample]:
    """One of each policy."""
    asked = replace(trace, seed=seed) if trace else scenario.workload(seed)
    requests, failures = asked.requests(), scenario.failures(seed)
    found = list[Sample]()
    for name in names:
        cluster = without_load_time(scenario.cluster) if name == FLOOR else scenario.cluster
        policy = POLICIES[OURS if name == FLOOR else name](seed)
        found.append(_sample(simulate(cluster, requests, policy, failures), scenario.warm_up_s, seed))
    return found


def _of_seed(workload: str, names: Sequence[str], trace: Replay | None, seed: int) -> tuple[int, list[Sample]]:
    """In a process of its own, where a scenario is known by its name."""
    return seed, of_seed(SCENARIOS[workload], names, seed, trace)


def _sample(run: Run, from_s: float, seed: int) -> Sample:
    counted = [one.latency_s for one in run.outcomes if one.request.at_s >= from_s]
    return Sample(figures(run, from_s), np.array([one for one in counted if one is not None]), None if seed else run)
