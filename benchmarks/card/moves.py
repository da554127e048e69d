"""Answers that move between two workers of one card, each move told as it has happened, and bounded in time."""

import asyncio

from benchmarks.card.progress import Progress
from benchmarks.migration.gap import Gaps, Moved, measure_move
from benchmarks.migration.stage import Stage
from benchmarks.series import BenchmarkBroken
from mesh.errors import MeshError
from mesh.requests import MoveKind

MOVE_S = 20.0  # of one answer and its move, its prompt included


async def measure_moves(progress: Progress, stage: Stage, name: str, kind: MoveKind) -> Gaps:
    """One a round and context; those that fail, or take too long, are told and left out. BenchmarkBroken if all do."""
    progress.tell(f"moves: {name}")
    found: dict[int, list[Moved]] = {}
    for context in stage.sizes.contexts * stage.sizes.rounds:
        try:
            async with asyncio.timeout(MOVE_S):
                moved = await measure_move(stage, context, kind)
        except (MeshError, BenchmarkBroken, TimeoutError) as error:
            progress.fail(f"{name}, about {context} tokens", error)
            continue
        found.setdefault(context, []).append(moved)
        progress.tell(f"  about {context} tokens: {_text(moved)}")
    if not found:
        raise BenchmarkBroken(f"{name}: no move was made")
    return Gaps({context: tuple(ones) for context, ones in found.items()})


def _text(moved: Moved) -> str:
    steps = f"{moved.gap_s * 1e3:.1f} ms, {moved.steps:.2f} steps of {moved.step_s * 1e3:.2f} ms"
    sent = f"by {moved.kind}, {moved.bytes_sent / 1e6:.0f} MB"
    return f"{steps}; {sent}, done after {moved.took_s:.3f} s, exact {moved.exact}"
