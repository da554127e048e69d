"""Getting a place from the scheduler that leads, through its restarts."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from mesh.clients.scheduler import SchedulerClient
from mesh.errors import Unreachable
from mesh.facts import Leader
from mesh.requests import Phase, Placement, Progress, Wish
from mesh.state.mirror import Mirror

PATIENCE_S = 0.2  # between asking a scheduler that does not answer and asking it again
SCHEDULER_GONE = frozenset({"UNREACHABLE", "NOT_LEADER", "DRAINING"})


class Places:
    """Asks for places; a scheduler that dies while a request waits costs the wait nothing but time."""

    def __init__(self, mirror: Mirror, schedulers: SchedulerClient, hold_s: float) -> None:
        self._mirror, self._schedulers, self._hold_s = mirror, schedulers, hold_s

    async def assign(self, wish: Wish) -> AsyncGenerator[Progress | Placement, None]:
        """Progress, then one Placement, held until this iteration is closed."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        gives_up_s = began_s + self._hold_s
        while True:
            leader = await self._leader(gives_up_s - loop.time())
            left = replace(wish, service=wish.service.after(loop.time() - began_s))
            try:
                async with aclosing(self._schedulers.assign(leader.address, left)) as events:
                    async for event in events:
                        yield event
                return
            except Unreachable as error:
                if error.reason not in SCHEDULER_GONE or loop.time() >= gives_up_s:
                    raise
            yield Progress(Phase.QUEUED)
            await self._mirror.until(lambda facts: facts.leader not in (None, leader), PATIENCE_S)  # noqa: B023

    async def _leader(self, limit_s: float) -> Leader:
        await self._mirror.until(lambda facts: facts.leader is not None, limit_s)
        leader = self._mirror.facts.leader
        if leader is None:
            raise Unreachable(
                "no scheduler is running; start one", reason="NO_SCHEDULER", retry_after_s=self._hold_s / 10
            )
        return leader
