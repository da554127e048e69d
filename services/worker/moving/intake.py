"""The target's end of one Receive stream, and of the pipe beside it: parts are read while those before them are being
written."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

from mesh.clients.receive_wire import Blocks, Manifest, Opening, Part, StateTensor
from mesh.errors import DataLoss, NotFound, Unreachable
from mesh.faults import Point, reach
from mesh.moves import SOURCE_ENDED, Ready
from services.worker.moving.expected import Expected
from services.worker.moving.measures import BYTES
from services.worker.moving.pipe_in import PipeIn

AHEAD = 8  # parts that are read and not written yet: what is more waits in the network


class Intake:
    """What comes for one expected request, after the opening."""

    def __init__(self, expected: Expected, parts: AsyncIterator[Part], pipe: PipeIn | None) -> None:
        self._manifest: Manifest | None = None
        self._expected, self._parts, self._pipe = expected, parts, pipe
        self._reading: asyncio.Task[Part | None] | None = None
        self._piping: asyncio.Task[int] | None = None
        self._writes = deque[tuple[int, asyncio.Future[None]]]()

    async def written(self) -> AsyncGenerator[int, None]:
        """Bytes written so far, whenever these grow, until all is there, which its gateway is told. Raises what was
        wrong with a part, and NotFound when the move is over."""
        total = 0
        try:
            while self._writes or self._manifest is None:
                await self._news()
                if size := self._piped() + self._wrote():
                    total += size
                    BYTES.inc(size)
                    yield total
            await reach(Point.TARGET_READY)
            self._expected.ready(Ready(self._expected.move_id, self._manifest.kv_tokens))
        finally:
            await self._give_up()

    async def _news(self) -> None:
        """Returns when the oldest part, or a piece, has been written, or another part has been read."""
        if not self._reading and self._manifest is None and len(self._writes) < AHEAD:
            self._reading = asyncio.create_task(self._read(), name=f"parts of {self._expected.move_id}")
        if self._pipe and not self._piping:
            self._piping = asyncio.create_task(self._pipe.piece(), name=f"pieces of {self._expected.move_id}")
        oldest = self._writes[0][1] if self._writes else None
        waited_for = [one for one in (self._reading, self._piping, oldest, self._expected.over) if one]
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        if self._expected.over.done():
            raise over(self._expected.move_id)
        if self._reading and self._reading.done():
            reading, self._reading = self._reading, None
            self._take(reading.result())

    async def _give_up(self) -> None:
        """Returns when nothing waits in the pipe or for parts any more."""
        left = [one for one in (self._reading, self._piping, *(write for _, write in self._writes)) if one]
        for one in left:
            one.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _wrote(self) -> int:
        """Bytes of the oldest part, if it has been written."""
        if not (self._writes and self._writes[0][1].done()):
            return 0
        size, write = self._writes.popleft()
        write.result()
        return size

    def _piped(self) -> int:
        """Bytes of a piece, if one has been written."""
        if not (self._piping and self._piping.done()):
            return 0
        size, self._piping = self._piping.result(), None
        if not size:
            self._pipe = None
        self._expected.lease.renew()
        return size

    async def _read(self) -> Part | None:
        part = await anext(self._parts, None)
        await reach(Point.TARGET_RECEIVES)
        return part

    def _take(self, part: Part | None) -> None:
        self._expected.lease.renew()
        incoming = self._expected.incoming
        assert incoming
        match part:
            case Blocks() | StateTensor():
                self._writes.append((part.bytes, asyncio.ensure_future(incoming.write(part))))
            case Manifest():
                self._manifest = part
                self._writes.append((0, asyncio.ensure_future(incoming.complete(part))))
            case Opening():
                raise DataLoss("a worker began to send a request twice on one stream", reason="BAD_STREAM")
            case None:
                raise Unreachable("a worker ended what it sends of a request early", reason=SOURCE_ENDED)


def over(move_id: str) -> NotFound:
    """There is no such move here, any more."""
    return NotFound(f"move {move_id} is not expected here; it may have been given up", reason="MOVE_OVER")
