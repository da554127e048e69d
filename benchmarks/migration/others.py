"""What others that run on the source notice of a move: their tokens a second, with moves beside them and without."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks.migration.stage import Stage
from benchmarks.migration.watched import Watched
from benchmarks.report import say
from benchmarks.series import Series
from mesh.requests import MoveKind

SHORT = 100
TOKENS = 16_000


@dataclass(frozen=True, slots=True)
class OthersFigures:
    """Tokens a second of all others together, in windows that follow one another."""

    quiet: Series  # the request that will move runs there, and does not
    moving: Series  # while it is sent
    context: int

    @property
    def slowdown(self) -> Series:
        """The share that they lose."""
        return Series.of(1 - one for one in self.moving.over(self.quiet).values)


async def measure_others(stage: Stage) -> OthersFigures:
    """In each round the others are brought to where a long request has been placed; then they are counted for a while,
    and for as long as that one leaves."""
    say("others beside a move")
    context, quiet, moving = stage.sizes.contexts[-1], [], []
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(stage.asked(SHORT, TOKENS)) for _ in range(stage.sizes.others)]
        for _ in range(stage.sizes.rounds):
            async with stage.asked(context) as mover:
                await mover.until(4)
                await _gather(stage, others, mover)
                await mover.more(8)
                quiet.append(await _rate(others, asyncio.sleep(stage.sizes.seconds)))
                moving.append(await _rate(others, stage.move(mover, MoveKind.KV)))
    return OthersFigures(Series.of(quiet), Series.of(moving), context)


async def _gather(stage: Stage, others: Sequence[Watched], mover: Watched) -> None:
    """Moves those that run elsewhere."""
    there = {one.request_id: one.worker_id for one in await stage.client.requests()}
    for one in others:
        if there[one.request_id] != there[mover.request_id]:
            await stage.client.move(one.request_id, to_worker_id=there[mover.request_id])


async def _rate(others: Sequence[Watched], doing: Awaitable[object]) -> float:
    """Tokens a second of all of them while something is done."""
    before, began_s = sum(len(one.times_s) for one in others), time.perf_counter()
    await doing
    return (sum(len(one.times_s) for one in others) - before) / (time.perf_counter() - began_s)
