"""The source of a move: a sequence's blocks leave while it goes on; when almost all are there, it stops, and the rest
follows with the tokens."""

import asyncio

from mesh.clients.receive_wire import Blocks, Manifest, Opening
from mesh.clients.receiving import Sending, sending
from mesh.errors import Unsuitable
from mesh.faults import Point, reach
from mesh.moves import Send, Stopped
from services.worker.engine.departures import Lap, Stand
from services.worker.engine.mover import Mover
from services.worker.moving.expected import Say
from services.worker.moving.limits import MoveLimits
from services.worker.moving.messages_out import MessagesOut
from services.worker.moving.pace import Pace
from services.worker.moving.pieces import packed, pieces
from services.worker.moving.pipe_out import PipeOut, piped

MOST_LAPS = 8  # in a row, none of which left fewer blocks to send than the one before


class Departure:
    """One Send, carried out by `run`: it returns when the target has everything, and raises what keeps it from that: a
    MeshError or an EngineError. From Stopped on the sequence stands still, whatever happens here."""

    def __init__(self, send: Send, engine_id: str, mover: Mover, limits: MoveLimits, pace: Pace) -> None:
        self._send, self._engine_id, self._mover, self._limits, self._pace = send, engine_id, mover, limits, pace

    async def run(self, lap: Lap, say: Say) -> None:
        """From its first lap on; `say` tells its gateway that it has stopped."""
        opening = Opening(self._send.move_id, lap.state.layout)
        async with sending(self._send.target_address, opening, self._limits.flow) as target:
            stand, left = await (
                self._stopped(target, lap) if self._limits.precopy else self._stopped_at_once(lap.first)
            )
            rest = _rest(stand, left)
            tail_bytes = sum(blocks.bytes for blocks in rest)
            answer = stand.state.request.generated
            say(Stopped(self._send.move_id, len(answer), target.sent_bytes + tail_bytes))
            await reach(Point.SOURCE_STOPPED)
            for blocks in rest:
                await target.send(blocks)
            await target.finish(Manifest((*stand.state.request.prompt_ids, *answer), stand.state.kv_tokens))
            await reach(Point.SOURCE_SENT)

    async def _stopped_at_once(self, left: int) -> tuple[Stand, int]:
        await reach(Point.SOURCE_STOPS)
        return await asyncio.wrap_future(self._mover.stop(self._engine_id, left)), left

    async def _stopped(self, target: Sending, lap: Lap) -> tuple[Stand, int]:
        """Once all full blocks but one or none have been written there; and how many have."""
        address, patience_s = self._send.target_address, self._limits.flow.patience_s
        async with piped(address, target, self._pace, patience_s) as pipe:
            way = pipe or MessagesOut(self._engine_id, self._mover, target, self._pace)
            return await self._laps(way, lap)

    async def _laps(self, way: PipeOut | MessagesOut, lap: Lap) -> tuple[Stand, int]:
        """Each sends what has filled during the one before. One block follows the stop, in a few milliseconds: a lap of
        its own would wait for a step, in which the next one may fill."""
        laps, fewest = 0, len(lap.blocks) + 1
        while True:
            laps, fewest = (0, len(lap.blocks)) if len(lap.blocks) < fewest else (laps + 1, fewest)
            if laps > MOST_LAPS:
                raise self._too_slow(lap)
            await way.leave(lap)
            await reach(Point.SOURCE_STOPS)
            after = await asyncio.wrap_future(self._mover.lap_or_stop(self._engine_id, lap.end, lap.term))
            if isinstance(after, Stand):
                return after, lap.end
            lap = after

    def _too_slow(self, lap: Lap) -> Unsuitable:
        address = self._send.target_address
        return Unsuitable(
            f"{len(lap.blocks)} blocks fill while as many leave for {address}; ask for kind tokens",
            reason="LINK_TOO_SLOW",
        )


def _rest(stand: Stand, left: int) -> list[Blocks]:
    """What has not left yet, as messages."""
    return [
        packed(piece, [data[piece.first - left : piece.end - left] for data in stand.rest[slice(*piece.layers)]])
        for piece in pieces(stand.state.layer_bytes, left, stand.state.blocks)
    ]
