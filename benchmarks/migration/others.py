"""What others that run on the source notice of a move: their tokens a second, with moves beside them and without."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from benchmarks.migration.stage import Stage, other
from benchmarks.migration.watched import Watched
from benchmarks.report import say
from benchmarks.series import BenchmarkBroken, Series
from mesh.requests import MoveKind

SHORT = 100
TOKENS = 16_000
TRIES = 20


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
    """Before each move a window as long as the move will be, and no shorter than what the clock can tell."""
    say("others beside a move")
    context, quiet, moving = stage.sizes.contexts[-1], [], []
    async with _others(stage) as (others, source):
        for _ in range(stage.sizes.rounds):
            async with _placed(stage, context, source) as mover:
                await mover.more(8)
                quiet.append(await _rate(others, asyncio.sleep(stage.sizes.seconds / 5)))
                moving.append(await _rate(others, stage.move(mover, MoveKind.KV)))
    return OthersFigures(Series.of(quiet), Series.of(moving), context)


@asynccontextmanager
async def _others(stage: Stage) -> AsyncIterator[tuple[Sequence[Watched], str]]:
    """Requests that all run on one worker."""
    async with AsyncExitStack() as stack:
        others: list[Watched] = []
        for _ in range(stage.sizes.others):
            watched = await stack.enter_async_context(stage.asked(SHORT, TOKENS))
            await watched.until(4)
            others.append(watched)
        assert others[0].started
        source = others[0].started.worker_id
        for watched in others[1:]:
            if watched.started and watched.started.worker_id != source:
                await stage.client.move(watched.request_id, to_worker_id=source)
                await watched.more(4)
        yield others, source


@asynccontextmanager
async def _placed(stage: Stage, context: int, source: str) -> AsyncIterator[Watched]:
    """A request that runs on the source; one that was placed elsewhere is asked anew."""
    for _ in range(TRIES):
        async with stage.asked(context) as watched:
            await watched.until(4)
            assert watched.started
            if watched.started.worker_id == source:
                yield watched
                return
    raise BenchmarkBroken(f"{TRIES} requests were all placed on {other(source)}")


async def _rate(others: Sequence[Watched], doing: Awaitable[object]) -> float:
    """Tokens a second of all of them while something is done."""
    before, began_s = sum(len(one.times_s) for one in others), time.perf_counter()
    await doing
    return (sum(len(one.times_s) for one in others) - before) / (time.perf_counter() - began_s)
