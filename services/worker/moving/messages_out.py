"""Blocks on their way out in messages, where there is no pipe: the engine's thread reads them between two steps."""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from torch import Tensor

from mesh.clients.receive_wire import Blocks
from mesh.clients.receiving import Sending
from mesh.faults import Point, reach
from services.worker.engine.departures import Lap
from services.worker.engine.mover import Mover
from services.worker.moving.pace import Pace
from services.worker.moving.pieces import Piece, packed, pieces

AHEAD = 4  # pieces asked of the engine at once: each waits for the end of a step; with more, clients notice the copy


class MessagesOut:
    """To one target, of what the engine knows as `engine_id`."""

    def __init__(self, engine_id: str, mover: Mover, target: Sending, pace: Pace) -> None:
        self._engine_id, self._mover, self._target, self._pace = engine_id, mover, target, pace

    async def leave(self, lap: Lap) -> None:
        """Returns when all of it is written there."""
        async with aclosing(self._exported(pieces(lap.state.layer_bytes, lap.first, lap.end))) as exported:
            async for blocks in exported:
                await self._pace.leave(blocks.bytes)
                await self._target.send(blocks)
                await reach(Point.SOURCE_STREAMS)
        await self._target.written()

    async def _exported(self, parts: Iterable[Piece]) -> AsyncGenerator[Blocks, None]:
        """The pieces with their bytes, in order."""
        asked = deque[tuple[Piece, asyncio.Future[tuple[Tensor, ...]]]]()
        coming = iter(parts)
        try:
            while True:
                for piece in itertools.islice(coming, AHEAD - len(asked)):
                    asked.append((piece, self._export(piece)))
                if not asked:
                    return
                piece, data = asked.popleft()
                yield packed(piece, await data)
        finally:
            for _, data in asked:
                data.cancel()

    def _export(self, piece: Piece) -> asyncio.Future[tuple[Tensor, ...]]:
        export = self._mover.export(self._engine_id, range(*piece.layers), piece.first, piece.end)
        return asyncio.wrap_future(export)
