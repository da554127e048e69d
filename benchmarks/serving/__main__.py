"""python -m benchmarks.serving: cold starts, the way of a token, the dispatch of a request, each beside its rival."""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.args import parser
from benchmarks.machine import cores
from benchmarks.measured import measured
from benchmarks.report import say
from benchmarks.serving.cold import measure_cold
from benchmarks.serving.dispatch import measure_dispatch
from benchmarks.serving.relay import measure_relay
from benchmarks.serving.report import Figures, say_figures
from benchmarks.serving.stage import Stage
from cli.cluster import ClusterOptions, LocalCluster

PARTS = ("cold", "relay", "dispatch")


def main() -> None:
    """Exit codes: 0 measured, 1 could not be."""
    options = _options()
    figures = measured("serving", _measure(options))
    say_figures(figures)
    if options.json:
        say(figures.json())


def _options() -> argparse.Namespace:
    made = parser("serving", "Times cold starts, the relay of tokens and warm dispatch in a cluster of real processes.")
    made.add_argument("--only", choices=PARTS, action="append", help="measure this part; may be repeated")
    made.add_argument("--models", type=Path, help="directory that keeps the random models, for the next run")
    return made.parse_args()


async def _measure(options: argparse.Namespace) -> Figures:
    parts, figures = options.only or PARTS, Figures()
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-") as scratch:
        settings = {"worker": {"OMP_NUM_THREADS": str(cores())}}
        cluster = LocalCluster(ClusterOptions(Path(scratch), workers=1, settings_of=settings))
        async with cluster, cluster.client() as client:
            stage = Stage(cluster, client, options.models or Path(scratch, "models"), quick=options.quick, say=say)
            if "cold" in parts:
                figures = replace(figures, cold=await measure_cold(stage))
            if "relay" in parts:
                figures = replace(figures, relay=await measure_relay(stage))
            if "dispatch" in parts:
                figures = replace(figures, dispatch=await measure_dispatch(stage))
    return figures


if __name__ == "__main__":
    main()
