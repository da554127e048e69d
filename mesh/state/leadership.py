"""The one scheduler that decides: a lease with a fencing token, and with it the sweeping of lapsed members."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from mesh.errors import Unreachable
from mesh.state.connection import State
from mesh.state.keys import EVENTS_KEPT
from mesh.state.mirror import Mirror

log = structlog.get_logger()
RENEWALS_PER_LEASE = 3
RETRY_S = 0.5
RENEWAL_S = 2.5  # for members to renew their leases once Redis answers again: they, too, could not


@dataclass(frozen=True, slots=True)
class Standing:
    """The answer to a bid: who leads, under which fence, for how long."""

    holder: str
    fence: int
    left_s: float


class Leadership:
    """Runs `lead(fence)` whenever this process is the leader, and cancels it when it no longer is.

    A leader that Redis does not answer goes on, so that warm requests find their way; it must command no worker then,
    for behind a partition another may lead. Workers refuse the older fence anyway.
    """

    def __init__(self, state: State, mirror: Mirror, member_id: str, address: str, lease_s: float) -> None:
        self._state, self._mirror = state, mirror
        self._id, self._address, self._lease_s = member_id, address, lease_s
        self._followed = ""  # the leader that was last stood by for
        self._outage = False  # Redis did not answer, the last time or since members were last swept

    async def run(self, lead: Callable[[int], Awaitable[None]]) -> None:
        """Stands by, leads, stands by again, until cancelled; resigns then."""
        while True:
            standing = await self._first_bid()
            if standing is None:
                await asyncio.sleep(RETRY_S)
            elif standing.holder == self._id:
                await self._lead(standing.fence, lead)
            else:
                await self._stand_by(standing)

    async def _first_bid(self) -> Standing | None:
        """For the leadership of nobody. Told to end meanwhile, it gives back at once what the bid has won."""
        bid = asyncio.ensure_future(self._bid(fence=0))
        try:
            return await asyncio.shield(bid)
        except asyncio.CancelledError:
            standing = await bid
            if standing and standing.holder == self._id:
                await self._resign(standing.fence)
            raise

    async def _stand_by(self, standing: Standing) -> None:
        """Until the leader's lease ends, for it cannot be taken earlier, or until it resigns.

        Facts that do not show the leader yet look as if it had resigned; then the next bid tells.
        """
        if standing.holder != self._followed:
            log.info("standing by", leader=standing.holder)
            self._followed = standing.holder
        await self._mirror.until(lambda facts: facts.leader is None, standing.left_s)

    async def _lead(self, fence: int, lead: Callable[[int], Awaitable[None]]) -> None:
        log.info("leading", fence=fence)
        self._followed = ""
        duty = asyncio.ensure_future(lead(fence))
        duties = {duty, asyncio.create_task(self._renew(fence)), asyncio.create_task(self._sweep())}
        try:
            done, _ = await asyncio.wait(duties, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in duties:
                task.cancel()
            await asyncio.gather(*duties, return_exceptions=True)
            await self._resign(fence)
        log.warning("no longer leading", fence=fence)

    async def _renew(self, fence: int) -> None:
        """Returns when Redis says that the leadership is lost."""
        while True:
            await asyncio.sleep(self._lease_s / RENEWALS_PER_LEASE)
            standing = await self._bid(fence)
            if standing and standing.fence != fence:
                return

    async def _sweep(self) -> None:
        """Removes lapsed members, each at the moment its lease ends."""
        keys = self._state.keys
        while True:
            try:
                if self._outage:
                    await asyncio.sleep(RENEWAL_S)
                self._outage = False
                next_ms = await self._state.run("sweep", [keys.leases, keys.events], [keys.member_prefix, EVENTS_KEPT])
                next_s = max(next_ms, 1) / 1000 if next_ms >= 0 else self._lease_s
                await asyncio.sleep(min(next_s, self._lease_s))
            except Unreachable:
                self._outage = True

    async def _bid(self, fence: int) -> Standing | None:
        keys = self._state.keys
        try:
            holder, held, left_ms = await self._state.run(
                "lead",
                [keys.leader, keys.fence, keys.events],
                [self._id, self._address, round(self._lease_s * 1000), fence, EVENTS_KEPT],
            )
        except Unreachable as error:
            log.warning("cannot bid for the leadership", error=error.message)
            self._outage = True
            return None
        return Standing(holder, held, left_ms / 1000)

    async def _resign(self, fence: int) -> None:
        try:
            await self._state.run("resign", [self._state.keys.leader, self._state.keys.events], [fence, EVENTS_KEPT])
        except Unreachable:
            log.warning("could not resign: the lease will lapse")
