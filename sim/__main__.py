"""python -m sim compare | workload: policies side by side on the same seeds; what a workload is like."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

import policy
import sim
from mesh.compiled import use

COMPILED = [one.__name__ for one in (policy, sim) if use(one)]  # before any of either is imported

from sim.compare import BOUNDS, compare
from sim.lengths import TABLES
from sim.policies import POLICIES
from sim.report import table
from sim.scenarios import SCENARIOS
from sim.statistics import fit, statistics
from sim.traces.options import add_options, replay
from sim.traces.row import BadTrace


def main() -> None:
    """Prints what it found."""
    parser = argparse.ArgumentParser(prog="python -m sim", description=__doc__)
    commands = parser.add_subparsers(required=True)
    comparing = commands.add_parser(
        "compare", help="a table over paired seeds; the first policy is the one compared with"
    )
    comparing.add_argument(
        "--policies", default=",".join((*POLICIES, *BOUNDS)), help=f"of: {', '.join((*POLICIES, *BOUNDS))}"
    )
    comparing.add_argument(
        "--workload", default="market", choices=SCENARIOS, metavar="NAME", help=f"of: {', '.join(SCENARIOS)}"
    )
    comparing.add_argument("--seeds", type=int, default=30)
    comparing.add_argument("--jobs", type=int, default=1, help="processes that share the seeds")
    comparing.add_argument("--plots", type=Path, help="a directory to draw latencies and the first seed's timelines in")
    add_options(comparing)
    comparing.set_defaults(run=_compare)
    workload = commands.add_parser("workload", help="statistics of a workload beside what it was to be like")
    workload.add_argument("workload", choices=SCENARIOS, metavar="NAME", help="as of compare")
    workload.add_argument("--seed", type=int, default=1)
    workload.set_defaults(run=_workload)
    args = parser.parse_args()
    args.run(args, parser)


def _compare(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    names = args.policies.split(",")
    if unknown := [name for name in names if name not in POLICIES and name not in BOUNDS]:
        parser.error(f"no policy is called {', '.join(unknown)}")
    trace = replay(args, len(SCENARIOS[args.workload].cluster.models))
    sys.stderr.write(f"compiled: {', '.join(COMPILED) or 'nothing (make compile)'}\n")
    try:
        found = compare(args.workload, names, args.seeds, args.jobs, trace)
    except BadTrace as bad:
        parser.error(str(bad))
    sys.stdout.write(table({name: [one.figures for one in each] for name, each in found.items()}) + "\n")
    if args.plots:
        from sim.plots import draw  # noqa: PLC0415  (matplotlib is slow to import, and only this needs it)

        draw(found, args.plots)


def _workload(args: argparse.Namespace, _: argparse.ArgumentParser) -> None:
    workload = SCENARIOS[args.workload].workload(args.seed)
    requests = workload.requests()
    seen = statistics(requests, workload.models)
    targets = {"duration_s": workload.duration_s, "rps": workload.rps, "zipf": workload.skew}
    scoped = "model_gap_cv" if workload.scope.value == "per_model" else "gap_cv"
    targets[scoped] = workload.gaps.cv
    for field in fields(seen):
        target = f"   (asked for, in the long run: {targets[field.name]:g})" if field.name in targets else ""
        sys.stdout.write(f"{field.name:14} {_show(getattr(seen, field.name))}{target}\n")
    if len(workload.lengths) == 1:
        prompt, answer = fit(requests, TABLES[workload.lengths[0]])
        sys.stdout.write(f"{'prompt fit':14} {prompt:.4f}   (distance to {workload.lengths[0]}; asked for: 0)\n")
        sys.stdout.write(f"{'answer fit':14} {answer:.4f}   (distance to {workload.lengths[0]}; asked for: 0)\n")


def _show(value: float | tuple[float, ...]) -> str:
    return " ".join(f"{one:.3f}" for one in value) if isinstance(value, tuple) else f"{value:g}"


if __name__ == "__main__":
    main()
