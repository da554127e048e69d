"""A TCP proxy in front of a store, which a test can stop after so many bytes: trouble at a known moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PIECE_BYTES = 64 << 10


class Proxy:
    """Passes everything on; once `limit_bytes` have come back from the store it holds the rest, and sets `held`."""

    def __init__(self) -> None:
        self.address = ""
        self.target = ""
        self.limit_bytes: int | None = None
        self.passed_bytes = 0
        self.held = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        host, port = self.target.rsplit(":", 1)
        try:
            up_reader, up_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        self._open |= {writer, up_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, up_writer, counted=False))
                group.create_task(self._pass(up_reader, writer, counted=True))
        except* OSError:
            pass
        finally:
            for end in (writer, up_writer):
                end.close()
                self._open.discard(end)

    def cut(self) -> None:
        """Breaks every connection."""
        for writer in self._open:
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool) -> None:
        while data := await reader.read(PIECE_BYTES):
            if counted:
                self.passed_bytes += len(data)
                if self.limit_bytes is not None and self.passed_bytes > self.limit_bytes:
                    self.held.set()
                    await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def proxy() -> AsyncIterator[Proxy]:
    """Listens until the context is closed."""
    one, connections = Proxy(), set[asyncio.Task[None]]()
    async with asyncio.TaskGroup() as group:

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.add(group.create_task(one.serve(reader, writer)))

        async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()[:2]
            one.address = f"{host}:{port}"
            try:
                yield one
            finally:
                one.cut()
                for connection in connections:
                    connection.cancel()
