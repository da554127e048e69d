"""The demo's story, told three times: undisturbed, moved between two workers in the midst of a sentence, and with its
worker killed in the midst of one."""

import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import pairwise

from cli.measures import time_text
from mesh.clients.gateway_records import AnswerEvent, Delta, Finished, SamplingWishes, Started

STORY = "Tell me a story about a godwit."
TELLING = SamplingWishes(max_tokens=400, temperature=0.0)
AFTER_TOKENS = 60


@dataclass(slots=True)
class Told:
    """One telling: its tokens, and when each piece of text came."""

    tokens: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)

    @property
    def usual_s(self) -> float:
        """Between two pieces, on average, since some come together; the longest wait is left out."""
        waits = sorted(after - before for before, after in pairwise(self.times_s))
        return statistics.fmean(waits[:-1])


async def told(
    events: AsyncGenerator[AnswerEvent], telling: Told, befall: Callable[[Started], Awaitable[object]] | None = None
) -> AsyncGenerator[AnswerEvent]:
    """Passes an answer on and takes notes; after some tokens, `befall` happens beside it, to the worker that began."""
    befalling: asyncio.Future[object] | None = None
    started: Started | None = None
    try:
        async with aclosing(events):
            async for event in events:
                match event:
                    case Started():
                        started = event
                    case Delta(token_ids=tokens):
                        telling.tokens += tokens
                        telling.times_s.append(time.monotonic())
                if befall and started and befalling is None and len(telling.tokens) >= AFTER_TOKENS:
                    befalling = asyncio.ensure_future(befall(started))
                yield event
        if befalling:
            await befalling
    finally:
        if befalling:
            befalling.cancel()


def what_befell(finished: Finished, telling: Told, before: Told) -> str:
    """What its reader noticed, and whether it reads as before."""
    same = "token for token as before" if telling.tokens == before.tokens else "not as before"
    if not finished.moves:
        return f"it stayed on {finished.worker_id}; {same}"
    gap, usual = time_text(finished.moves[-1].gap_s), time_text(telling.usual_s)
    return f"{same}; where it went on, its reader waited {gap} for a token, elsewhere {usual} on average"
