"""python -m benchmarks.scheduling.keeping: what is won by keeping replicas by their worth, and by loading ahead, beside
the longest idle leaving first and a fixed keep-alive. One node of four devices, with room for eight of 24 models."""

import argparse
import json
import math
import sys
from dataclasses import replace
from statistics import mean

from policy.knobs import Knobs
from sim.arrivals import Gaps, Law
from sim.judgement import Judgement
from sim.report import Figures, figures, table
from sim.run import simulate
from sim.scenarios import of_models
from sim.workload import Workload

MODELS, RPS, HOUR_S = 24, 0.08, 3600.0
GAPS = {"regular": 0.1, "poisson": 1.0, "bursty": 4.0}  # deviation over mean of each model's gaps
WORTH = Knobs(prewarm_gain=math.inf, prewarm_io_share=1.0)  # nothing is loaded ahead
LONGEST = replace(WORTH, horizon_s=0.0)  # nothing is worth anything: the longest idle leaves first
WAYS = {
    "whimbrel": Knobs(),
    "no prewarm": WORTH,
    "longest idle": LONGEST,
    "60 s": replace(LONGEST, keep_alive_s=60.0),
}


def compared(cv: float, seeds: int, hours: float) -> dict[str, list[Figures]]:
    """Each way on the same requests, seed by seed."""
    found: dict[str, list[Figures]] = {name: [] for name in WAYS}
    for seed in range(seeds):
        gaps, duration_s = Gaps(Law.GAMMA, cv), hours * HOUR_S
        workload = Workload(MODELS, RPS, duration_s, seed, skew=0.9, gaps=gaps, lengths=("gsm8k-like",))
        requests = workload.requests()
        for name, knobs in WAYS.items():
            run = simulate(of_models(MODELS, 1), requests, Judgement(knobs))
            found[name].append(figures(run, from_s=duration_s / 4))  # before that, little is known
    return found


def main() -> None:
    """Prints a table for each kind of gaps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--json", action="store_true", help="print one JSON object of mean latencies as the last line")
    args = parser.parse_args()
    means_s: dict[str, dict[str, float]] = {}
    for name, cv in GAPS.items():
        found = compared(cv, args.seeds, args.hours)
        means_s[name] = {way: mean(one.mean_s for one in runs) for way, runs in found.items()}
        sys.stdout.write(f"{name}: gaps of cv {cv:g}\n{table(found)}\n\n")
        sys.stdout.flush()
    if args.json:
        sys.stdout.write(json.dumps(means_s) + "\n")


if __name__ == "__main__":
    main()
