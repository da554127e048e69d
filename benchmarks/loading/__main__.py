"""python -m benchmarks.loading: from disk, from memory and from a peer, each beside its rivals and its limit."""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.args import parser
from benchmarks.loading.cast import cast
from benchmarks.loading.cold import measure_cold
from benchmarks.loading.crowd import measure_crowd
from benchmarks.loading.many import measure_many
from benchmarks.loading.peers import VENVS
from benchmarks.loading.report import Figures, say_figures
from benchmarks.loading.residence import measure_residence
from benchmarks.loading.stage import TINY, Sizes, Stage
from benchmarks.loading.steps import measure_steps
from benchmarks.loading.warm import measure_warm
from benchmarks.loading.wire import measure_wire
from benchmarks.measured import measured
from benchmarks.report import say

PARTS = ("cold", "warm", "many", "memory", "crowd", "peer", "ablation")
QUICK_PARTS = ("cold", "warm", "memory", "ablation")
RACES = {"cold", "warm", "many"}
PARAMETERS_B, QUICK_PARAMETERS_B = 1.1, 0.1
ROUNDS, QUICK_ROUNDS = 7, 2


def main() -> None:
    """Exit codes: 0 measured, 1 could not be."""
    options = _options()
    figures = measured("loading", _measure(options))
    say_figures(figures)
    if options.plots:
        from benchmarks.plots import draw  # noqa: PLC0415  matplotlib is an extra

        draw(figures, options.plots)
    if options.json:
        say(figures.json())


def _options() -> argparse.Namespace:
    made = parser("loading", "Times loads from disk, memory and a peer beside other loaders and the machine's limits.")
    made.add_argument("--only", choices=PARTS, action="append", help="measure this part; may be repeated")
    made.add_argument("--scratch", type=Path, help="directory on the disk to measure; what is written is deleted")
    made.add_argument("--models", type=Path, help="directory that keeps the random models, for the next run")
    made.add_argument("--peers-venvs", type=Path, default=VENVS, help="where make bench-peers installed the peers")
    made.add_argument("--parameters", type=float, help="billions of weights of the main model")
    made.add_argument("--rounds", type=int, help="how often each race is run")
    made.add_argument("--plots", type=Path, help="directory to draw the figures into, as PNG")
    return made.parse_args()


async def _measure(options: argparse.Namespace) -> Figures:
    parts = options.only or (QUICK_PARTS if options.quick else PARTS)
    parameters_b = options.parameters or (QUICK_PARAMETERS_B if options.quick else PARAMETERS_B)
    sizes = Sizes.of(parameters_b, options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS))
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-", dir=options.scratch) as directory:
        scratch = Path(directory)
        stage = Stage(scratch, options.models or scratch / "models", sizes, say)
        await stage.sources(sizes.main, TINY)
        figures = Figures(imported=(await stage.have(sizes.main))[0])
        if not options.quick:
            figures = replace(figures, least_imported=(await stage.have(TINY))[0])
        if RACES & set(parts):
            async with cast(options.peers_venvs, say) as loaders:
                if "cold" in parts:
                    figures = replace(figures, cold=await measure_cold(stage, loaders))
                if "warm" in parts:
                    figures = replace(figures, warm=await measure_warm(stage, loaders, scale=not options.quick))
                if "many" in parts:
                    figures = replace(figures, many=await measure_many(stage, loaders))
        if "memory" in parts:
            figures = replace(figures, residence=await measure_residence(stage))
        if "crowd" in parts:
            figures = replace(figures, crowd=await measure_crowd(stage))
        if "peer" in parts:
            figures = replace(figures, wire=await measure_wire(stage))
        if "ablation" in parts:
            figures = replace(figures, steps=await measure_steps(stage))
    return figures


if __name__ == "__main__":
    main()
