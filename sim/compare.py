"""Policies side by side: each on the same requests and failures, seed by seed, in as many processes as one likes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sim.arrivals import Floats
from sim.bounds.first_loads import first_loads
from sim.bounds.no_load_time import without_load_time
from sim.failures import Failure
from sim.outcome import Run
from sim.policies import POLICIES
from sim.processes import spread
from sim.report import Figures, figures
from sim.request import Request
from sim.run import simulate
from sim.scenarios import SCENARIOS, Scenario
from sim.spec import ClusterSpec
from sim.traces.replay import Replay

OURS = "whimbrel"
FLOOR = "no-load-time"  # ours, where loads take none: what is left is queueing
BOUND = "first-loads"  # nobody's, where nothing but a model's first load holds anybody up: nothing is below it
BOUNDS = (FLOOR, BOUND)


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
        found.append(_sample(_run(name, scenario.cluster, seed, requests, failures), scenario.warm_up_s, seed))
    return found


def _run(name: str, cluster: ClusterSpec, seed: int, requests: Sequence[Request], failures: Sequence[Failure]) -> Run:
    """Of a policy or of one of BOUNDS."""
    if name == BOUND:
        return first_loads(cluster, requests)
    if name == FLOOR:
        return simulate(without_load_time(cluster), requests, POLICIES[OURS](seed), failures)
    return simulate(cluster, requests, POLICIES[name](seed), failures)


def _of_seed(workload: str, names: Sequence[str], trace: Replay | None, seed: int) -> tuple[int, list[Sample]]:
    """In a process of its own, where a scenario is known by its name."""
    return seed, of_seed(SCENARIOS[workload], names, seed, trace)


def _sample(run: Run, from_s: float, seed: int) -> Sample:
    counted = [one.latency_s for one in run.outcomes if one.request.at_s >= from_s]
    return Sample(figures(run, from_s), np.array([one for one in counted if one is not None]), None if seed else run)
