"""Sending another worker what one has of a request that moves: a stream of its own channel, with a window."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from grpc import aio
from whimbrel.worker.v1 import worker_pb2 as pb

from mesh.clients.channel import connect, limit, our_errors
from mesh.clients.pipe import Offer
from mesh.clients.receive_wire import Blocks, Manifest, Opening, Part, StateTensor, part_to
from mesh.errors import MeshError, Unreachable

RECEIVE = "/whimbrel.worker.v1.WorkerService/Receive"
RECEIVE_S = 3600.0
Call = aio.StreamStreamCall[Part, pb.ReceiveResponse]


@dataclass(frozen=True, slots=True)
class Flow:
    """At most `window_bytes` are on their way and not written; who writes nothing for `patience_s` is lost."""

    window_bytes: int
    patience_s: float


class Sending:
    """One stream to a target. Its methods raise the MeshError that the target ended it with."""

    def __init__(self, call: Call, peer: str, flow: Flow) -> None:
        self._call, self._peer, self._flow = call, peer, flow
        self.sent_bytes = self._written_bytes = 0
        self.offer: Offer | None = None  # of a pipe, once the target agrees
        self._agreed = False
        self._failure: MeshError | None = None
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read(), name=f"acknowledgements of {peer}")

    async def send(self, part: Blocks | StateTensor) -> None:
        """Once there is room for it in the window; alone it always fits."""
        await self._room(part.bytes)
        await self._write(part)
        self.sent_bytes += part.bytes

    async def send_beside(self, count_bytes: int, send: Callable[[], Awaitable[None]]) -> None:
        """As `send`, of what `send` puts on a pipe, and raises OSErrors."""
        await self._room(count_bytes)
        self.sent_bytes += count_bytes
        try:
            await send()
        except TimeoutError:
            raise self._silent() from None
        except OSError:
            raise await self._ended() from None

    @property
    def on_their_way(self) -> int:
        """Bytes sent of which the target has not said that they are written."""
        return self.sent_bytes - self._written_bytes

    async def written(self) -> None:
        """Returns when everything sent is written."""
        await self._until(lambda: self.on_their_way <= 0)

    async def finish(self, manifest: Manifest) -> None:
        """Says that this was all, and waits until the target has agreed."""
        await self._write(manifest, last=True)
        await self.written()
        await asyncio.wait([self._reader], timeout=self._flow.patience_s)
        if not self._reader.done():
            raise self._silent()
        self._check()

    async def close(self) -> None:
        """Ends the stream, wherever it stands."""
        self._call.cancel()
        self._reader.cancel()
        await asyncio.wait([self._reader])

    async def open(self, opening: Opening) -> None:
        """Returns when the target agrees to it. Were more sent before, why it does not could be lost."""
        await self._write(opening)
        await self._until(lambda: self._agreed)

    async def _write(self, part: Part, last: bool = False) -> None:
        try:
            async with asyncio.timeout(self._flow.patience_s):
                await self._call.write(part)
                if last:
                    await self._call.done_writing()
        except TimeoutError:  # one that is frozen reads nothing
            raise self._silent() from None
        except (aio.AioRpcError, asyncio.InvalidStateError):
            raise await self._ended() from None

    async def _room(self, count_bytes: int) -> None:
        await self._until(lambda: self.on_their_way + count_bytes <= max(self._flow.window_bytes, count_bytes))

    async def _ended(self) -> MeshError:
        """Why the target has ended the stream, which the reader knows."""
        await asyncio.wait([self._reader], timeout=self._flow.patience_s)
        return self._failure or Unreachable(f"{self._peer} ended the call early", reason="CALL_ENDED")

    async def _until(self, ready: Callable[[], bool]) -> None:
        """Patience lasts from each word of the target to the next."""
        async with self._news:
            while not (ready() or self._failure):
                try:
                    async with asyncio.timeout(self._flow.patience_s):
                        await self._news.wait()
                except TimeoutError:
                    raise self._silent() from None
        self._check()

    async def _read(self) -> None:
        try:
            with our_errors(self._peer):
                async for response in self._call:
                    if response.HasField("pipe"):
                        self.offer = Offer(response.pipe.port, response.pipe.token)
                    self._agreed, self._written_bytes = True, response.written_bytes
                    await self._tell()
        except MeshError as error:
            self._failure = error
            await self._tell()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    def _check(self) -> None:
        if self._failure:
            raise self._failure

    def _silent(self) -> MeshError:
        return Unreachable(f"{self._peer} has written nothing for {self._flow.patience_s:g} s", reason="TARGET_SILENT")


@asynccontextmanager
async def sending(address: str, opening: Opening, flow: Flow) -> AsyncIterator[Sending]:
    """A stream to the worker at `address`; leaving ends it. It has a channel of its own: bulk holds nothing else up."""
    async with connect(address) as channel:
        method: aio.StreamStreamMultiCallable[Part, pb.ReceiveResponse] = channel.stream_stream(
            RECEIVE, part_to, pb.ReceiveResponse.FromString
        )
        sending = Sending(method(timeout=limit(RECEIVE_S)), f"worker at {address}", flow)
        try:
            await sending.open(opening)
            yield sending
        finally:
            await sending.close()
