"""The target's end of a pipe: a thread beside the engine's reads pieces, and writes each once it has been checked."""

import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass

from mesh.clients.pipe import TOKEN_BYTES, Offer, Pipe
from mesh.errors import DataLoss
from mesh.faults import Point, reach
from mesh.sockets import readable
from services.worker.engine.beside import Bytes
from services.worker.moving.blocks_in import BlocksIn
from services.worker.moving.hand import Hand
from services.worker.moving.pieces import checksum

MOST_BYTES = 64 << 20  # of a piece that is more than one block
TOKEN_S = 1.0  # that one who connects may take to say it


@dataclass(slots=True)
class _Piece:
    first: int
    end: int
    data: Bytes
    written: bool = False


class PipeIn:
    """For one stream, whose source need not come; others may try."""

    def __init__(self, listener: socket.socket, incoming: BlocksIn, hand: Hand) -> None:
        self._listener, self._incoming, self._hand = listener, incoming, hand
        self.offer = Offer(listener.getsockname()[1], secrets.token_bytes(TOKEN_BYTES))
        self._pipe: Pipe | None = None  # of one that has connected, and may be nobody that is expected
        self._known = False
        self._buffer: Bytes | None = None

    async def piece(self) -> int:
        """Bytes of the next one, when they are written; 0 when no more come. Raises DataLoss, ImportRefused and
        UnknownRequest."""
        pipe = await self._connected()
        await reach(Point.TARGET_RECEIVES)
        piece = await self._hand.do(self._next, pipe)
        if piece and not piece.written:
            await self._incoming.make_room(piece.end)
            await self._hand.do(self._write, piece)
        return len(piece.data) if piece else 0

    def close(self) -> None:
        """For good, once `piece` has ended or been cancelled."""
        self._listener.close()
        if self._pipe:
            self._pipe.close()

    async def _connected(self) -> Pipe:
        while not (self._pipe and self._known):
            await readable(self._listener)
            with suppress(OSError):  # it has gone again
                self._pipe = Pipe(self._listener.accept()[0])
                self._known = await self._hand.do(self._pipe.knows, self.offer.token, TOKEN_S)
        return self._pipe

    def _next(self, pipe: Pipe) -> _Piece | None:
        """One that has been checked, and is written if there is room; valid until the next one."""
        try:
            head = pipe.head()
            if head is None:
                return None
            data = self._memory(head.blocks)
            pipe.fill(data.data)
        except (OSError, EOFError):  # the stream beside it ends, too, and says why
            return None
        if checksum([data.data]) != head.checksum:
            raise DataLoss("blocks of a request that moves are not what their checksum says", reason="CORRUPT")
        piece = _Piece(head.first_block, head.first_block + head.blocks, data)
        if piece.end <= self._incoming.landing.room:
            self._write(piece)
        return piece

    def _write(self, piece: _Piece) -> None:
        self._incoming.landing.fill(piece.first, piece.end, piece.data)
        piece.written = True

    def _memory(self, blocks: int) -> Bytes:
        beside = self._incoming.landing.beside
        count_bytes = blocks * beside.block_bytes
        if not blocks or count_bytes > max(MOST_BYTES, beside.block_bytes):
            raise DataLoss(f"a piece of {blocks} blocks is not one that a worker sends", reason="BAD_STREAM")
        if self._buffer is None or len(self._buffer) < count_bytes:
            self._buffer = beside.buffer(blocks)
        return self._buffer[:count_bytes]


@asynccontextmanager
async def piping(host: str, incoming: BlocksIn) -> AsyncIterator[PipeIn]:
    """A pipe that a source may come to while the block runs, at a free port of `host`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family, backlog=1)
    listener.setblocking(False)
    with closing(Hand("in")) as hand, closing(PipeIn(listener, incoming, hand)) as pipe:
        yield pipe
