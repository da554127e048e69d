"""The window of what is sent to another worker, on a real socket: what is not written there waits here."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from grpc import aio
from whimbrel.worker.v1 import worker_pb2 as pb
from whimbrel.worker.v1.worker_pb2_grpc import WorkerServiceServicer, add_WorkerServiceServicer_to_server

from mesh.clients.receive_wire import Blocks, Manifest, Opening
from mesh.clients.receiving import Flow, Sending, sending
from mesh.errors import DataLoss, Unreachable, Unsuitable
from mesh.interceptor import Surround

PART = Blocks(0, 1, 0, 1, (memoryview(bytes(1000)),), 0)
OPENING, MANIFEST = Opening("move", b"layout"), Manifest((1, 2), 1)


class Target(WorkerServiceServicer):
    """Agrees to everything; says that something is written when `written` is told."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[str | None] = asyncio.Queue()
        self.written: asyncio.Queue[int | Exception] = asyncio.Queue()

    async def Receive(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ReceiveRequest], context: aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.ReceiveResponse]:
        """Reads beside what it says."""
        reader = asyncio.create_task(self._read(request_iterator))
        try:
            yield pb.ReceiveResponse()
            while (told := await self.written.get()) != 0:
                if isinstance(told, Exception):
                    raise told
                yield pb.ReceiveResponse(written_bytes=told)
        finally:
            reader.cancel()

    async def _read(self, requests: AsyncIterator[pb.ReceiveRequest]) -> None:
        async for request in requests:
            self.heard.put_nowait(request.WhichOneof("part"))


@asynccontextmanager
async def stream(window_bytes: int) -> AsyncIterator[tuple[Target, Sending]]:
    server, target = aio.server(interceptors=[Surround()]), Target()
    add_WorkerServiceServicer_to_server(target, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with sending(f"127.0.0.1:{port}", OPENING, Flow(window_bytes, 30.0)) as opened:
        assert await target.heard.get() == "opening"
        yield target, opened
    await server.stop(0)


async def test_what_the_window_does_not_hold_leaves_when_something_has_been_written() -> None:
    async with stream(2500) as (target, opened):
        sender = asyncio.create_task(send(opened, 5))
        assert [await target.heard.get() for _ in range(2)] == ["blocks"] * 2
        for written in (1000, 2000, 3000):
            assert opened.on_their_way <= 2000
            assert (target.heard.empty(), sender.done()) == (True, False)
            target.written.put_nowait(written)
            assert await target.heard.get() == "blocks"
        await sender
        target.written.put_nowait(5000)
        await opened.written()


async def send(opened: Sending, parts: int) -> None:
    for _ in range(parts):
        await opened.send(PART)


async def test_a_part_that_is_larger_than_the_window_goes_alone() -> None:
    async with stream(10) as (target, opened):
        await opened.send(PART)
        assert await target.heard.get() == "blocks"


async def test_a_target_that_writes_nothing_is_given_up() -> None:
    async with stream(1000) as (_, opened):
        await opened.send(PART)
        opened._flow = Flow(1000, patience_s=0.1)
        with pytest.raises(Unreachable, match="has written nothing") as silent:
            await opened.send(PART)
        assert silent.value.reason == "TARGET_SILENT"
        with pytest.raises(Unreachable, match="has written nothing"):
            await opened.finish(MANIFEST)


async def test_why_a_target_ends_it_is_told_to_whoever_sends_or_waits() -> None:
    async with stream(1000) as (target, opened):
        await opened.send(PART)
        target.written.put_nowait(Unsuitable("no", reason="LAYOUT_MISMATCH"))
        for waits in (opened.written(), opened.send(PART), opened.finish(MANIFEST)):
            with pytest.raises(Unsuitable) as refused:
                await waits
            assert refused.value.reason == "LAYOUT_MISMATCH"


async def test_the_manifest_is_the_last_word_and_is_agreed_to() -> None:
    async with stream(1000) as (target, opened):
        finishing = asyncio.create_task(opened.finish(MANIFEST))
        assert await target.heard.get() == "manifest"
        assert not finishing.done()
        target.written.put_nowait(0)
        await finishing


async def test_a_manifest_that_is_refused_is_no_success() -> None:
    async with stream(1000) as (target, opened):
        target.written.put_nowait(DataLoss("a lie"))
        with pytest.raises(DataLoss):
            await opened.finish(MANIFEST)


async def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        async with sending("127.0.0.1:1", OPENING, Flow(1000, 5.0)) as opened:
            await opened.finish(MANIFEST)


async def test_one_that_is_frozen_is_given_up() -> None:
    """Its system takes connections for it."""
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        port = frozen.getsockname()[1]
        with pytest.raises(Unreachable) as silent:
            async with sending(f"127.0.0.1:{port}", OPENING, Flow(1000, 0.2)):
                pass
    assert silent.value.reason == "TARGET_SILENT"
