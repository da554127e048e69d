"""python -m benchmarks.migration: what a client, and others, notice of answers that move, in a cluster of real
processes."""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.args import parser
from benchmarks.measured import measured
from benchmarks.migration.gap import Gaps, measure_gaps
from benchmarks.migration.others import measure_others
from benchmarks.migration.report import Figures, say_figures
from benchmarks.migration.stage import FULL, QUICK, Sizes, Stage, staged
from benchmarks.migration.stream import measure_stream
from benchmarks.report import say
from mesh.requests import MoveKind

PARTS = ("gap", "stop", "stream", "others")
STOP_FIRST = {"worker": {"WHIMBREL_MOVE_PRECOPY": "false"}, "gateway": {"WHIMBREL_MOVE_STOP_S": "60"}}


def main() -> None:
    """Exit codes: 0 measured, 1 could not be."""
    options = _options()
    figures = measured("migration", _measure(options))
    say_figures(figures)
    if options.json:
        say(figures.json())


def _options() -> argparse.Namespace:
    made = parser("migration", "Times the silence that a move makes, the stream of KV, and what others lose by it.")
    made.add_argument("--only", choices=PARTS, action="append", help="measure this part; may be repeated")
    made.add_argument("--rounds", type=int, help="moves of each context and way")
    made.add_argument("--models", type=Path, help="directory that keeps the random model, for the next run")
    return made.parse_args()


async def _measure(options: argparse.Namespace) -> Figures:
    parts = options.only or PARTS
    sizes = QUICK if options.quick else FULL
    sizes = replace(sizes, rounds=options.rounds or sizes.rounds)
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-") as scratch:
        models_dir = options.models or Path(scratch)
        figures = Figures()
        if {"gap", "stream", "others"} & set(parts):
            async with staged(models_dir, sizes) as stage:
                figures = await _moving(stage, parts)
        if "stop" in parts:
            figures = replace(figures, stopped=await _stopping(models_dir, sizes))
    return figures


async def _moving(stage: Stage, parts: tuple[str, ...]) -> Figures:
    figures = Figures(kv_bytes_per_token=stage.kv_bytes_per_token)
    if "gap" in parts:
        figures = replace(
            figures,
            sent=await measure_gaps(stage, "KV is sent while the answer goes on", MoveKind.KV),
            computed=await measure_gaps(
                stage, "KV is computed at the target while the answer goes on", MoveKind.TOKENS
            ),
        )
    if "stream" in parts:
        figures = replace(figures, stream=await measure_stream(stage))
    if "others" in parts:
        figures = replace(figures, others=await measure_others(stage))
    return figures


async def _stopping(models_dir: Path, sizes: Sizes) -> Gaps:
    """The same moves where workers stop a request before they send it."""
    async with staged(models_dir, sizes, STOP_FIRST) as stage:
        return await measure_gaps(stage, "the answer stops, then KV is sent", MoveKind.KV)


if __name__ == "__main__":
    main()
