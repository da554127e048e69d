"""Getting a place from the scheduler that leads, and keeping it through that scheduler's end."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace

from mesh.clients.scheduler import SchedulerClient
from mesh.errors import MeshError, Unreachable
from mesh.facts import Leader
from mesh.moves import Relocation
from mesh.requests import Phase, Placement, Progress, Wish
from mesh.state.mirror import Mirror
from services.gateway.holding import Holding, Place
from services.gateway.leading import Leading
from services.gateway.moving.errand import Errand
from services.gateway.patience import Absence

PATIENCE_S = 0.2  # between asking a scheduler that does not answer and asking it again
SCHEDULER_GONE = frozenset({"UNREACHABLE", "NOT_LEADER", "DRAINING", "CALL_ENDED"})
STORE_GONE = "CHECKPOINT_UNREACHABLE"
Asking = AsyncGenerator[Progress | Placement | Relocation, None]
Events = AsyncGenerator[Progress | Placement | Errand, None]


class Places:
    """Asks for places; a scheduler that dies while a request waits costs the wait nothing but time."""

    def __init__(
        self,
        mirror: Mirror,
        schedulers: SchedulerClient,
        leading: Leading,
        holding: Holding,
        *,
        hold_s: float,
        absent_s: float,
    ) -> None:
        self._mirror, self._schedulers, self._hold_s, self._absent_s = mirror, schedulers, hold_s, absent_s
        self._leading, self._holding = leading, holding

    async def assign(self, wish: Wish) -> Events:
        """Progress, then one Placement, held until this iteration is closed; then, for whoever reads on, where else the
        request is to go on."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        gives_up_s, absence = began_s + self._hold_s, Absence(self._mirror, self._absent_s)
        while True:
            leader = await self._leader(gives_up_s - loop.time())
            waited_s = loop.time() - began_s
            left = replace(wish, service=wish.service.after(waited_s), waited_s=waited_s)
            try:
                async with aclosing(self._ask(leader, left)) as events:
                    async for event in events:
                        yield event
                return
            except Unreachable as error:
                if loop.time() >= gives_up_s or not await self._may_help(error, wish, leader, absence):
                    raise
            yield Progress(Phase.QUEUED)

    async def _may_help(self, error: Unreachable, wish: Wish, leader: Leader, absence: Absence) -> bool:
        """Waits for another scheduler to lead, or for stores to come back; False if neither can be the trouble."""
        if error.reason in SCHEDULER_GONE:
            await self._mirror.until(lambda facts: facts.leader not in (None, leader), PATIENCE_S)
            return True
        return error.reason == STORE_GONE and wish.model in self._mirror.facts.models and await absence.ends()

    async def _ask(self, leader: Leader, wish: Wish) -> Events:
        """Of one scheduler: while the request waits, only for as long as that leads; its place outlives it."""
        places: list[Place] = []

        def orphaned() -> None:
            for place in places:
                place.orphaned()

        def ended() -> None:  # where we leave, the call ends before the place is given back, which nobody need hear of
            asyncio.get_running_loop().call_soon(orphaned)

        async with aclosing(self._schedulers.assign(leader.address, wish, ended)) as events:
            try:
                while isinstance(event := await self._next(leader, events), Progress):
                    yield event
                if isinstance(event, Placement):
                    places.append(place := self._holding.place(wish, event))
                    yield event
                    async for errand in self._errands(leader, events, place):
                        yield errand
            finally:
                for place in places:
                    place.end()

    async def _errands(self, leader: Leader, events: Asking, place: Place) -> AsyncGenerator[Errand, None]:
        """From the scheduler that gave the place for as long as it holds it, then from whoever is told of it."""
        with suppress(MeshError):  # its scheduler is gone, or leads no more
            async for event in events:
                if isinstance(event, Relocation):
                    yield Errand(event, leader, place, self._schedulers, self._mirror)
        while True:
            told, relocation = await place.relocations.get()
            yield Errand(relocation, told, place, self._schedulers, self._mirror)

    async def _next(self, leader: Leader, events: Asking) -> Progress | Placement | Relocation | None:
        async with self._leading.under(leader):
            return await anext(events, None)

    async def _leader(self, limit_s: float) -> Leader:
        await self._mirror.until(lambda facts: facts.leader is not None, limit_s)
        leader = self._mirror.facts.leader
        if leader is None:
            raise Unreachable(
                "no scheduler is running; start one", reason="NO_SCHEDULER", retry_after_s=self._hold_s / 10
            )
        return leader
