"""The source of a move: a sequence's blocks leave while it goes on; when almost all are there, it stops, and the rest
follows with the tokens."""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import Future
from contextlib import aclosing

from torch import Tensor

from mesh.clients.receive_wire import Blocks, Manifest, Opening
from mesh.clients.receiving import Sending, sending
from mesh.errors import Unsuitable
from mesh.faults import Point, reach
from mesh.moves import Send, Stopped
from services.worker.engine.departures import SequenceState, Stand
from services.worker.engine.mover import Mover
from services.worker.moving.expected import Say
from services.worker.moving.limits import MoveLimits
from services.worker.moving.pace import Pace
from services.worker.moving.pieces import Piece, packed, pieces

AHEAD = 4  # pieces asked of the engine at once: each waits for the end of a step; with more, clients notice the copy
MOST_LAPS = 8  # in a row, none of which left fewer blocks to send than the one before


class Departure:
    """One Send, carried out by `run`: it returns when the target has everything, and raises what keeps it from that: a
    MeshError or an EngineError. From Stopped on the sequence stands still, whatever happens here."""

    def __init__(self, send: Send, engine_id: str, mover: Mover, limits: MoveLimits, pace: Pace) -> None:
        self._send, self._engine_id, self._mover, self._limits, self._pace = send, engine_id, mover, limits, pace
        self._bytes_sent = 0

    async def run(self, say: Say) -> None:
        """`say` tells its gateway that it has stopped."""
        await reach(Point.SOURCE_SENDS)
        state = await self._describe()
        opening = Opening(self._send.move_id, state.layout)
        async with sending(self._send.target_address, opening, self._limits.flow) as target:
            left = await self._while_it_goes_on(target, state) if self._limits.precopy else self._send.blocks_there
            await reach(Point.SOURCE_STOPS)
            stand = await asyncio.wrap_future(self._mover.stop(self._engine_id, left))
            answer = stand.state.request.generated
            rest = _rest(stand, left)
            tail_bytes = sum(blocks.bytes for blocks in rest)
            say(Stopped(self._send.move_id, len(answer), self._bytes_sent + tail_bytes))
            await reach(Point.SOURCE_STOPPED)
            for blocks in rest:
                await self._write(target, blocks)
            await target.finish(Manifest((*stand.state.request.prompt_ids, *answer), stand.state.kv_tokens))
            await reach(Point.SOURCE_SENT)

    async def _while_it_goes_on(self, target: Sending, state: SequenceState) -> int:
        """Sends full blocks until all have been written there, and returns how many. Each lap sends those that have
        filled during the one before."""
        left, laps, fewest = self._send.blocks_there, 0, state.full_blocks + 1
        while (lap := state.full_blocks - left) > 0:
            laps, fewest = (0, lap) if lap < fewest else (laps + 1, fewest)
            if laps > MOST_LAPS:
                raise Unsuitable(
                    f"{lap} blocks fill while as many leave for {self._send.target_address}; ask for kind tokens",
                    reason="LINK_TOO_SLOW",
                )
            await self._leave(target, pieces(state.layer_bytes, left, state.full_blocks))
            left = state.full_blocks
            state = await self._describe()
        return left

    async def _leave(self, target: Sending, parts: Iterable[Piece]) -> None:
        async with aclosing(self._exported(parts)) as exported:
            async for blocks in exported:
                await self._pace.leave(blocks.bytes)
                await self._write(target, blocks)
                await reach(Point.SOURCE_STREAMS)
        await target.written()

    async def _exported(self, parts: Iterable[Piece]) -> AsyncGenerator[Blocks, None]:
        """The pieces with their bytes, in order."""
        asked = deque[tuple[Piece, asyncio.Future[tuple[Tensor, ...]]]]()
        coming = iter(parts)
        try:
            while True:
                for piece in itertools.islice(coming, AHEAD - len(asked)):
                    asked.append((piece, asyncio.wrap_future(self._export(piece))))
                if not asked:
                    return
                piece, data = asked.popleft()
                yield packed(piece, await data)
        finally:
            for _, data in asked:
                data.cancel()

    def _export(self, piece: Piece) -> Future[tuple[Tensor, ...]]:
        return self._mover.export(self._engine_id, range(*piece.layers), piece.first, piece.end)

    async def _write(self, target: Sending, blocks: Blocks) -> None:
        await target.send(blocks)
        self._bytes_sent += blocks.bytes

    async def _describe(self) -> SequenceState:
        return await asyncio.wrap_future(self._mover.describe(self._engine_id))


def _rest(stand: Stand, left: int) -> list[Blocks]:
    """What has not left yet, as messages."""
    return [
        packed(piece, [data[piece.first - left : piece.end - left] for data in stand.rest[slice(*piece.layers)]])
        for piece in pieces(stand.state.layer_bytes, left, stand.state.blocks)
    ]
