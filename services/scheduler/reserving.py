"""The leader's side of reservations: each load is written down before it is commanded, and struck out after it."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from mesh.errors import Unreachable
from mesh.facts import Member
from mesh.state.reservations import Reservation, Reservations
from policy.actions import Load

log = structlog.get_logger()
RETRY_S = 0.5


class Reserving:
    """Of one lead, under its fence."""

    def __init__(self, reservations: Reservations, fence: int) -> None:
        self._reservations, self._fence = reservations, fence
        self._numbers = itertools.count()
        self._ended: asyncio.Queue[Reservation] = asyncio.Queue()

    @asynccontextmanager
    async def reserved(self, action: Load, worker: Member) -> AsyncIterator[None]:
        """For as long as a load is under way. Raises StaleFence when somebody else leads, for then nothing may be
        commanded, and Unreachable.

        A load that ends because our lead does stays reserved, for `run` has ended too: it is the next leader's.
        """
        reservation = self._of(action, worker)
        await self._reservations.reserve(reservation)
        try:
            yield
        finally:
            self.strike_out(reservation)

    def _of(self, action: Load, worker: Member) -> Reservation:
        spot = action.spot
        return Reservation(
            fence=self._fence,
            number=next(self._numbers),
            worker_id=worker.id,
            worker_fence=worker.fence,
            model=spot.model,
            digest=spot.digest,
            store_id=action.store_id,
            base=action.base,
            base_model=action.base_model,
            reason=action.reason,
            tenant=action.tenant,
        )

    def strike_out(self, reservation: Reservation) -> None:
        """Its load has ended, or is another reservation's now; returns at once."""
        self._ended.put_nowait(reservation)

    async def inherited(self) -> list[Reservation]:
        """What former leaders left, as soon as Redis says; nobody can add to it any more."""
        while True:
            try:
                return [one for one in await self._reservations.all() if one.fence != self._fence]
            except Unreachable:
                await asyncio.sleep(RETRY_S)

    async def run(self) -> None:
        """Strikes out what is to be, for as long as we lead."""
        while True:
            ended = [await self._ended.get()]
            while not self._ended.empty():
                ended.append(self._ended.get_nowait())
            try:
                await self._reservations.release(self._fence, *ended)
            except Unreachable as error:
                log.warning("reservations stay for now", error=error.message)
                await asyncio.sleep(RETRY_S)
                for reservation in ended:
                    self.strike_out(reservation)
