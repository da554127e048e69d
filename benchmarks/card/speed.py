"""Tokens a second of answers that clients follow, alone and side by side."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks.migration.stage import Stage
from benchmarks.report import say

AT_ONCE = (1, 8, 32)
SHORT, TOKENS = 100, 64


@dataclass(frozen=True, slots=True)
class SpeedFigures:
    """Of all answers together, by how many of them there are."""

    tokens_s: Mapping[int, float]

    def tell(self) -> None:
        """The table."""
        say("\nTokens a second over the gateway, both workers together:")
        for count, rate in self.tokens_s.items():
            say(f"  {f'{count} at once':<32}{rate:.1f} tokens/s")


async def measure_speed(stage: Stage) -> SpeedFigures:
    """From when each has begun until each has that many tokens more."""
    say("tokens a second")
    return SpeedFigures({count: await _rate(stage, count) for count in AT_ONCE})


async def _rate(stage: Stage, count: int) -> float:
    async with AsyncExitStack() as stack:
        answers = [await stack.enter_async_context(stage.asked(SHORT)) for _ in range(count)]
        await asyncio.gather(*(one.until(2) for one in answers))
        before, began_s = sum(len(one.times_s) for one in answers), time.perf_counter()
        await asyncio.gather(*(one.more(TOKENS) for one in answers))
        return (sum(len(one.times_s) for one in answers) - before) / (time.perf_counter() - began_s)
