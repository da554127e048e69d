"""Blocks on their way out over a pipe: a thread beside the engine's reads and sends them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial

import structlog

from mesh.clients.pipe import PieceHead, Pipe, connect
from mesh.clients.receiving import Sending
from mesh.faults import Point, reach
from services.worker.engine.beside import Bytes
from services.worker.engine.departures import Lap
from services.worker.moving.hand import Hand
from services.worker.moving.pace import Pace
from services.worker.moving.pieces import checksum, pipe_pieces

log = structlog.get_logger()
CONNECT_S = 1.0  # a target that takes longer is behind something that lets only its usual port through


class PipeOut:
    """To one target."""

    def __init__(self, pipe: Pipe, hand: Hand, target: Sending, pace: Pace) -> None:
        self._pipe, self._hand, self._target, self._pace = pipe, hand, target, pace

    async def leave(self, lap: Lap) -> None:
        """Returns when all of it is written there."""
        block_bytes = lap.beside.block_bytes
        parts = pipe_pieces(block_bytes, lap.first, lap.end)
        buffer = lap.beside.buffer(max((end - first for first, end in parts), default=0))
        for first, end in parts:
            data = buffer[: (end - first) * block_bytes]
            await self._pace.leave(len(data))
            await self._target.send_beside(len(data), partial(self._hand.do, self._send, lap, first, end, data))
            await reach(Point.SOURCE_STREAMS)
        await self._target.written()

    def _send(self, lap: Lap, first: int, end: int, data: Bytes) -> None:
        lap.read(first, end, data)
        self._pipe.send(PieceHead(first, end - first, checksum([data.data])), data.data)


@asynccontextmanager
async def piped(address: str, target: Sending, pace: Pace, patience_s: float) -> AsyncIterator[PipeOut | None]:
    """A pipe to the worker at `address`, if it has offered one and it comes about."""
    if target.offer is None:
        yield None
        return
    with closing(Hand("out")) as hand:
        try:
            pipe = await hand.opened(connect, address, target.offer, CONNECT_S, patience_s)
        except OSError as error:
            log.info("no pipe to a target, so blocks go to it in messages", target=address, error=str(error))
            yield None
            return
        with closing(pipe):
            yield PipeOut(pipe, hand, target, pace)
