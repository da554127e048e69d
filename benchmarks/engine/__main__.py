"""python -m benchmarks.engine: our engine beside others on one model, and what its own features cost or save."""

import argparse
import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.args import parser
from benchmarks.engine import decode
from benchmarks.engine.levels import measure_levels
from benchmarks.engine.overhead import Overhead, measure_overhead
from benchmarks.engine.prefix import measure_prefix
from benchmarks.engine.report import Figures, say_figures
from benchmarks.engine.stage import Sizes, stage
from benchmarks.engine.start import measure_start
from benchmarks.engine.throughput import measure_throughput
from benchmarks.loading.peers import VENVS
from benchmarks.machine import cores
from benchmarks.measured import measured
from benchmarks.report import say

PARTS = ("throughput", "prefix", "levels", "overhead", "start")
QUICK_PARTS = ("throughput", "prefix", "start")
FULL = Sizes(
    ("bfloat16", "float32"), layers=12, batches=(1, 8, 32), prompt_tokens=64, tokens=64, long_tokens=1500, rounds=5
)
QUICK = Sizes(("bfloat16",), layers=2, batches=(1, 8, 32), prompt_tokens=32, tokens=8, long_tokens=1500, rounds=1)


def main() -> None:
    """Exit codes: 0 measured, 1 could not be."""
    options = _options()
    if options.device:
        decode.main(["--device", options.device, "--shape", options.shape, *["--json"] * options.json])
        return
    figures = measured("engine", _measure(options))
    say_figures(figures)
    if options.json:
        say(figures.json())


def _options() -> argparse.Namespace:
    made = parser("engine", "Races our engine with others, and times what its features cost or save.")
    made.add_argument("--only", choices=PARTS, action="append", help="measure this part; may be repeated")
    made.add_argument(
        "--device", help="decode on this device of torch's instead, such as cuda; benchmarks.engine.decode"
    )
    made.add_argument("--shape", choices=decode.SHAPES, default="8b", help="with --device: of the model")
    made.add_argument("--scratch", type=Path, help="directory for the store and its models; what is written is deleted")
    made.add_argument("--models", type=Path, help="directory that keeps the random models, for the next run")
    made.add_argument("--peers-venvs", type=Path, default=VENVS, help="where make bench-peers installed the peers")
    made.add_argument("--threads", type=int, default=cores(), help="threads of torch, for every engine")
    made.add_argument(
        "--dtype", choices=FULL.dtypes, action="append", help="measure in this precision; may be repeated"
    )
    made.add_argument("--tokens", type=int, help="tokens of each answer")
    made.add_argument("--rounds", type=int, help="how often each race is run")
    return made.parse_args()


async def _measure(options: argparse.Namespace) -> Figures:
    parts = options.only or (QUICK_PARTS if options.quick else PARTS)
    sizes = QUICK if options.quick else FULL
    dtypes = tuple(options.dtype or sizes.dtypes)
    rounds, tokens = options.rounds or sizes.rounds, options.tokens or sizes.tokens
    sizes = replace(sizes, rounds=rounds, tokens=tokens, dtypes=dtypes)
    figures = Figures(options.threads)
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-", dir=options.scratch) as directory:
        scratch = Path(directory)
        async with stage(scratch, options.models or scratch / "models", sizes, options.threads, say) as stands:
            if "throughput" in parts:
                figures = replace(figures, throughput=await measure_throughput(stands, options.peers_venvs))
            if "prefix" in parts:
                figures = replace(figures, prefix=await measure_prefix(stands))
            if "levels" in parts:
                figures = replace(figures, levels=await measure_levels(stands))
            if "overhead" in parts:
                figures = replace(figures, overhead=await asyncio.to_thread(_overhead))
            if "start" in parts:
                figures = replace(figures, start=await measure_start(stands))
    return figures


def _overhead() -> tuple[Overhead, ...]:
    """On one thread: there is no arithmetic to share."""
    torch.set_num_threads(1)
    return tuple(measure_overhead())


if __name__ == "__main__":
    main()
