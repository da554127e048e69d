"""A running answer whose tokens are timed as its client sees them."""

import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise

from benchmarks.series import BenchmarkBroken
from mesh.clients.gateway_records import AnswerEvent, Delta, Started
from mesh.errors import MeshError

PATIENCE_S = 600.0


class Watched:
    """One answer; `times_s` are when each token came."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.started: Started | None = None
        self.failure: MeshError | None = None
        self.ended = False
        self.times_s: list[float] = []
        self._news = asyncio.Event()

    async def follow(self, events: AsyncGenerator[AnswerEvent]) -> None:
        """Until it ends."""
        try:
            async with aclosing(events):
                async for event in events:
                    self._take(event)
        except MeshError as error:
            self.failure = error
        self.ended = True
        self._news.set()

    def _take(self, event: AnswerEvent) -> None:
        match event:
            case Started():
                self.started = event
            case Delta(token_ids=tokens):
                self.times_s += [time.perf_counter()] * len(tokens)
        self._news.set()

    async def until(self, tokens: int) -> None:
        """That many have come. BenchmarkBroken if it ends before, and the MeshError that it ended with."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.times_s) < tokens:
                if self.failure:
                    raise self.failure
                if self.ended:
                    raise BenchmarkBroken(f"an answer ended after {len(self.times_s)} tokens, before its {tokens}th")
                self._news.clear()
                await self._news.wait()

    async def more(self, tokens: int) -> None:
        """That many more have come."""
        await self.until(len(self.times_s) + tokens)

    def step_s(self, first: int, end: int) -> float:
        """The usual time between two tokens, of those from `first` to `end`."""
        return statistics.median(self._gaps_s(first, end))

    def longest_s(self, first: int, end: int | None = None) -> float:
        """The longest time between two tokens there."""
        return max(self._gaps_s(first, end))

    def _gaps_s(self, first: int, end: int | None) -> list[float]:
        return [after - before for before, after in pairwise(self.times_s[first:end])]


@asynccontextmanager
async def watching(request_id: str, events: AsyncGenerator[AnswerEvent]) -> AsyncIterator[Watched]:
    """Follows an answer beside the block, and cancels it after."""
    watched = Watched(request_id)
    task = asyncio.create_task(watched.follow(events), name=f"watch {request_id}")
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.wait([task])
