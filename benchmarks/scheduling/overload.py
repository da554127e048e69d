"""python -m benchmarks.scheduling.overload: answers in time when twice as much is asked as can be answered, beside
first come, first served. In the simulator, on paired seeds."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from benchmarks.args import parser
from benchmarks.report import say
from policy.knobs import Knobs
from sim.arrivals import Gaps, Law
from sim.first_come import FirstCome
from sim.judgement import Judgement
from sim.outcome import Run
from sim.policy import Policy
from sim.report import Interval, interval
from sim.request import Request
from sim.run import simulate
from sim.scenarios import ASSUMED, BYTES_6_7B, NODE
from sim.spec import ClusterSpec, ModelSpec
from sim.workload import Workload, model_name

MODELS, TENANTS, SECONDS = 12, 4, 300.0
CLUSTER = ClusterSpec(
    nodes=2,
    node=replace(NODE, workers=2, slots=8),
    models=tuple(ModelSpec(model_name(i), BYTES_6_7B, init_s=0.3, costs=ASSUMED) for i in range(MODELS)),
)
DEADLINES_S = (4.0, 20.0)  # of a person who waits, and of a program; each half of the requests
LONGEST_S = max(DEADLINES_S)
SEEDS, QUICK_SEEDS = 30, 3

POLICIES: Mapping[str, Callable[[], Policy]] = {
    "classes": lambda: Judgement(Knobs()),
    "first come": lambda: FirstCome(Knobs()),
    "first come, 20 s at most": lambda: FirstCome(Knobs(hold_s=LONGEST_S)),
}


@dataclass(frozen=True, slots=True)
class Overload:
    """Answers a second whose first token was in time, by policy and seed. `capacity_rps` is what can be answered."""

    capacity_rps: float
    goodput_rps: Mapping[str, Sequence[float]]

    def ratio(self, other: str) -> Interval:
        """How many times as many as by another policy, seed by seed."""
        ours = self.goodput_rps["classes"]
        return interval([mine / its for mine, its in zip(ours, self.goodput_rps[other], strict=True)])

    def json(self) -> str:
        """One object: how many times as many answers are in time as by each other policy."""
        others = {"goodput_vs_fcfs": "first come", "goodput_vs_fcfs_20_s": "first come, 20 s at most"}
        return json.dumps({key: self.ratio(other).mean for key, other in others.items()})


def requests(rps: float, seed: int) -> list[Request]:
    """Long answers of a few models, some of which are more popular, in bursts."""
    gaps = Gaps(Law.GAMMA, 2.0)
    drawn = Workload(MODELS, rps, SECONDS, seed, skew=0.9, gaps=gaps, lengths=("sharegpt-like",), tenants=TENANTS)
    rng = np.random.default_rng(seed)
    return [replace(one, deadline_s=float(rng.choice(DEADLINES_S))) for one in drawn.requests()]


def capacity_rps() -> float:
    """Answers a second while far too much is asked and nobody gives up: from the second minute to the end."""
    run = simulate(CLUSTER, requests(20.0, seed=0), FirstCome(Knobs(hold_s=SECONDS, max_waiting=1 << 20)))
    ends = [one.finished_s for one in run.outcomes if one.finished_s is not None]
    return sum(SECONDS / 5 <= end_s < SECONDS for end_s in ends) / (SECONDS * 4 / 5)


def goodput_rps(run: Run) -> float:
    """Answers a second whose first token was in time."""
    first_s = [(one.first_s, one.request) for one in run.outcomes if one.first_s is not None and one.finished_s]
    return sum(at_s <= asked.at_s + (asked.deadline_s or 0.0) for at_s, asked in first_s) / SECONDS


def measure_overload(seeds: int, jobs: int = 1) -> Overload:
    """Every policy on every seed's requests, at twice the capacity."""
    capacity = capacity_rps()
    with ProcessPoolExecutor(jobs) as pool:
        each = list(pool.map(partial(_goodputs, 2.0 * capacity), range(seeds)))
    return Overload(capacity, {name: [one[name] for one in each] for name in POLICIES})


def _goodputs(rps: float, seed: int) -> dict[str, float]:
    asked = requests(rps, seed)
    return {name: goodput_rps(simulate(CLUSTER, asked, policy())) for name, policy in POLICIES.items()}


def main() -> None:
    """Prints a row for each policy."""
    made = parser("scheduling.overload", __doc__ or "")
    made.add_argument("--jobs", type=int, default=1, help="processes")
    options = made.parse_args()
    found = measure_overload(QUICK_SEEDS if options.quick else SEEDS, options.jobs)
    say(f"capacity {found.capacity_rps:.2f} answers/s; asked for twice as many, for {SECONDS:.0f} s")
    for name, values in found.goodput_rps.items():
        mean, ratio = interval(values), found.ratio(name)
        say(
            f"  {name:<28}{mean.mean:6.2f} in time a second [{mean.low:.2f}, {mean.high:.2f}]"
            f"  classes give {ratio.mean:.2f} times as many [{ratio.low:.2f}, {ratio.high:.2f}]"
        )
    if options.json:
        say(found.json())


if __name__ == "__main__":
    main()
