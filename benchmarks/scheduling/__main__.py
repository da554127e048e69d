"""python -m benchmarks.scheduling: our policy beside others in the simulator, how fast it simulates and decides, and
what the scheduler adds to a warm request."""

import argparse
from dataclasses import replace
from pathlib import Path

import policy
import sim
from mesh.compiled import use

COMPILED = [one.__name__ for one in (policy, sim) if use(one)]  # before any of either is imported

from benchmarks.args import parser
from benchmarks.machine import cores
from benchmarks.measured import measured
from benchmarks.report import say
from benchmarks.scheduling.decisions import measure_books, measure_decisions, resident_bytes
from benchmarks.scheduling.dispatch import measure_dispatch
from benchmarks.scheduling.experiments import ALL, QUICK, Experiment, experiment, scenarios
from benchmarks.scheduling.report import Figures, say_figures
from benchmarks.scheduling.speed import measure_speed
from mesh.telemetry import configure_logs

PARTS = ("dispatch", "decisions", "speed", "market", "markets", "paper")
QUICK_PARTS = ("dispatch", "decisions", "market")
LEFT_OUT = (
    "With --quick: ours and the paper's policy alone, on one seed of the market; fewer decisions and warm requests; "
    "and nothing of how fast the simulator is."
)
DECISIONS, QUICK_DECISIONS = 10_000, 500  # of each kind
TIMED = ("dispatch", "decisions", "speed")
SEEDS, QUICK_SEEDS = 30, 1


def main() -> None:
    """Exit codes: 0 measured, 1 could not be."""
    options = _options()
    configure_logs("benchmark", "warning")
    say(f"compiled: {', '.join(COMPILED) or 'nothing'}")
    figures = measured("scheduling", _measure(options))
    say_figures(figures)
    if options.json:
        say(figures.json())


def _options() -> argparse.Namespace:
    made = parser("scheduling", f"Compares scheduling policies on simulated clusters, seed by seed. {LEFT_OUT}")
    made.add_argument("--only", choices=PARTS, action="append", help="measure this part; may be repeated")
    made.add_argument(
        "--scenario", action="append", help="of python -m sim compare, in place of a part's; may be repeated"
    )
    made.add_argument("--policies", help=f"separated by commas, ours first; of: {', '.join(ALL)}")
    made.add_argument("--seeds", type=int, help="how many of each scenario")
    made.add_argument("--jobs", type=int, default=cores(), help="processes that share the seeds")
    made.add_argument("--plots", type=Path, help="directory to draw latencies and timelines into, a folder a scenario")
    return made.parse_args()


async def _measure(options: argparse.Namespace) -> Figures:
    parts = options.only or (QUICK_PARTS if options.quick else [part for part in PARTS if part != "market"])
    timed = [part for part in TIMED if part in parts and not options.scenario]
    figures = Figures(
        dispatch=await measure_dispatch(quick=options.quick) if "dispatch" in timed else None,
        decisions=measure_decisions(QUICK_DECISIONS if options.quick else DECISIONS) if "decisions" in timed else (),
        resident_bytes=resident_bytes() if "decisions" in timed else 0,
        books_bytes=measure_books() if "decisions" in timed else 0,
        speed=measure_speed() if "speed" in timed else None,
    )
    names = options.scenario or dict.fromkeys(name for part in parts if part not in TIMED for name in scenarios(part))
    for name in names:
        found = _experiment(name, options)
        say(found.text())
        figures = replace(figures, experiments=(*figures.experiments, found))
    return figures


def _experiment(name: str, options: argparse.Namespace) -> Experiment:
    policies = options.policies.split(",") if options.policies else QUICK if options.quick else ALL
    seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    if options.plots is None:
        return experiment(name, policies, seeds, options.jobs)
    from sim.plots import draw  # noqa: PLC0415  matplotlib is an extra

    return experiment(name, policies, seeds, options.jobs, lambda samples: draw(samples, options.plots / name))


if __name__ == "__main__":
    main()
