"""Loads that were commanded, written down before the command: whoever leads next knows what may be under way."""

from dataclasses import dataclass

from pydantic import TypeAdapter

from mesh.errors import StaleFence
from mesh.state.connection import State


@dataclass(frozen=True, slots=True)
class Reservation:
    """One load, by its number among those of the leader with that fence. `worker_fence` is of the worker's lease: its
    next life knows nothing of it."""

    fence: int
    number: int
    worker_id: str
    worker_fence: int
    model: str
    digest: str
    store_id: str
    reason: str
    base: str = ""
    base_model: str = ""
    tenant: str = ""

    @property
    def name(self) -> str:
        """Its field."""
        return f"{self.fence}/{self.number}"


RESERVATION: TypeAdapter[Reservation] = TypeAdapter(Reservation)


class Reservations:
    """Written under the leadership's fence: from the moment that another leads, nobody adds to those of before."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def reserve(self, reservation: Reservation) -> None:
        """To be awaited before the command. Raises StaleFence when another leads, Unreachable."""
        keys, body = self._state.keys, RESERVATION.dump_json(reservation).decode()
        done = await self._state.run(
            "reserve", [keys.leader, keys.reservations], [reservation.fence, reservation.name, body]
        )
        if not done:
            raise StaleFence(f"fence {reservation.fence} no longer leads; the load is left to the next leader")

    async def release(self, fence: int, *ended: Reservation) -> None:
        """Strikes out loads that have ended, whoever commanded them. Raises Unreachable; nothing happens when another
        leads, which then finds out by itself."""
        keys = self._state.keys
        names = [reservation.name for reservation in ended]
        await self._state.run("release", [keys.leader, keys.reservations], [fence, *names])

    async def all(self) -> list[Reservation]:
        """Every load that may be under way. Raises Unreachable."""
        async with self._state.answering():
            bodies = await self._state.redis.hvals(self._state.keys.reservations)
        return [RESERVATION.validate_json(body) for body in bodies]
