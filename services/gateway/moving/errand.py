"""A relocation that a scheduler has asked for, and what it and the request's place hear of its end."""

from mesh.clients.scheduler import SchedulerClient
from mesh.errors import MeshError, Unreachable
from mesh.facts import Leader
from mesh.faults import Point, reach
from mesh.moves import Moved, Relocation
from mesh.state.mirror import Mirror
from services.gateway.holding import Place

PATIENCE_S = 0.2  # between telling a scheduler that does not answer and telling it again


class Errand:
    """Of one place, from the scheduler that led then."""

    def __init__(
        self, relocation: Relocation, leader: Leader, place: Place, schedulers: SchedulerClient, mirror: Mirror
    ) -> None:
        self.relocation = relocation
        self._leader, self._place, self._schedulers, self._mirror = leader, place, schedulers, mirror

    async def ended(self, outcome: Moved) -> None:
        """Tells the scheduler for as long as it leads; whoever leads later is told of the place where it is then."""
        if outcome.moved:
            self._place.follow(self.relocation.target)
        await reach(Point.GATEWAY_REPORTS)
        while self._leads() and not await self._told(outcome):
            await self._mirror.until(lambda _: not self._leads(), PATIENCE_S)

    def _leads(self) -> bool:
        return self._mirror.facts.leader in (None, self._leader)

    async def _told(self, outcome: Moved) -> bool:
        try:
            await self._schedulers.moved(self._leader.address, outcome)
        except Unreachable:
            return False
        except MeshError:
            return True  # it wants to know nothing of it, and would not later
        return True
