"""The source of a move of a whole state: it is copied once, between two steps, and the sequence never stands still. The
tokens that it gets meanwhile are computed by the target, once that is granted."""

from mesh.clients.receive_wire import Opening
from mesh.clients.receiving import sending
from mesh.faults import Point, reach
from mesh.moves import Send
from services.worker.engine.opaque_state import HeldState
from services.worker.moving.limits import MoveLimits
from services.worker.moving.pace import Pace
from services.worker.moving.state_pieces import manifest_of, state_parts


class StateDeparture:
    """One Send, as a Departure; its gateway is told nothing, for nothing stops."""

    def __init__(self, send: Send, limits: MoveLimits, pace: Pace) -> None:
        self._send, self._limits, self._pace = send, limits, pace

    async def run(self, state: HeldState) -> None:
        """Returns when the target has everything; raises MeshErrors and EngineErrors."""
        opening = Opening(self._send.move_id, state.layout)
        async with sending(self._send.target_address, opening, self._limits.flow) as target:
            for part in state_parts(state):
                await self._pace.leave(part.bytes)
                await target.send(part)
                await reach(Point.SOURCE_STREAMS)
            await target.finish(manifest_of(state))
            await reach(Point.SOURCE_SENT)
