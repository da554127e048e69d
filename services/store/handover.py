"""Hands shared memory to processes on this node: a private Unix socket, a token, one descriptor a segment."""

import asyncio
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import structlog

from mesh.errors import Unsuitable
from mesh.segment import DESCRIPTORS_PER_MESSAGE, TOKEN_BYTES, close_all
from mesh.sockets import readable, writable
from services.store.segments import Segment

log = structlog.get_logger()
ASK_S = 5.0  # a client that has not sent its token by then is cut off
ACCEPT_RETRY_S = 0.5
BACKLOG = 64


class Handover:
    """The server side of mesh.segment. A token opens its segments for as long as the `offer` lasts."""

    def __init__(self, directory: Path | None) -> None:
        self._given = directory
        self._offers: dict[bytes, Sequence[Segment]] = {}

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with ExitStack() as stack:
            stack.callback(self._socket.close)
            try:
                directory = Path(tempfile.mkdtemp(prefix="whimbrel-store-", dir=self._given))  # 0700
                stack.callback(shutil.rmtree, directory, ignore_errors=True)
                self.socket_path = directory / "parts.sock"
                self._socket.bind(str(self.socket_path))
            except OSError as error:
                raise Unsuitable(f"WHIMBREL_SOCKET_DIR {self._given} cannot hold a socket: {error}") from error
            self._socket.listen(BACKLOG)
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.close()

    @contextmanager
    def offer(self, segments: Sequence[Segment]) -> Iterator[bytes]:
        """A token for these segments; worthless once the context is closed."""
        token = secrets.token_bytes(TOKEN_BYTES)
        self._offers[token] = segments
        try:
            yield token
        finally:
            del self._offers[token]

    async def serve(self) -> None:
        """Answers clients until cancelled."""
        async with asyncio.TaskGroup() as clients:
            while True:
                await readable(self._socket)
                try:
                    client, _ = self._socket.accept()
                except OSError as error:
                    log.warning("no memory can be handed over; workers stream instead", error=str(error))
                    await asyncio.sleep(ACCEPT_RETRY_S)  # out of descriptors: nothing tells when one is free
                    continue
                client.setblocking(False)
                clients.create_task(self._answer(client))

    async def _answer(self, client: socket.socket) -> None:
        with client:
            try:
                async with asyncio.timeout(ASK_S):
                    token = await _read_token(client)
                await self._hand_over(client, token)
            except (OSError, TimeoutError) as error:
                log.warning("a client of the parts socket was cut off", error=str(error))

    async def _hand_over(self, client: socket.socket, token: bytes) -> None:
        """All of an offer; what is left of it when the offer ends, while the client takes its time, is not sent."""
        if token not in self._offers:
            log.warning("a wrong token was refused on the parts socket")
        start = 0
        while start < len(segments := self._offers.get(token, ())):
            batch: list[int] = []
            try:
                for segment in segments[start : start + DESCRIPTORS_PER_MESSAGE]:
                    batch.append(segment.read_only())
                start += len(batch)
                async with asyncio.timeout(ASK_S):
                    await _send(client, batch)
            finally:
                close_all(batch)


async def _read_token(client: socket.socket) -> bytes:
    token = b""
    while len(token) < TOKEN_BYTES:
        received = await asyncio.get_running_loop().sock_recv(client, TOKEN_BYTES - len(token))
        if not received:
            raise ConnectionError("it closed before it sent a token")
        token += received
    return token


async def _send(client: socket.socket, descriptors: Sequence[int]) -> None:
    """One message; waits while the client has many of them to take."""
    while True:
        try:
            socket.send_fds(client, [b"\0"], descriptors)
        except BlockingIOError:
            await writable(client)  # asyncio writes bytes to a socket, not descriptors
        else:
            return
