"""How a call leaves this process: channel options, deadlines that carry over, errors as our own."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from grpc import aio

from mesh import deadline
from mesh.errors import from_rpc

T = TypeVar("T")
CALL_S = 10.0  # deadline of a quick call
MAX_MESSAGE_BYTES = 64 << 20

OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


def connect(address: str) -> aio.Channel:
    """A channel to one process of the mesh."""
    return aio.insecure_channel(address, options=OPTIONS)


class Channels:
    """One channel an address, made when first asked for."""

    def __init__(self) -> None:
        self._open: dict[str, aio.Channel] = {}

    def to(self, address: str) -> aio.Channel:
        """The channel to `address`."""
        if address not in self._open:
            self._open[address] = connect(address)
        return self._open[address]

    async def close_dead(self, alive: Collection[str]) -> None:
        """Closes channels to addresses where nobody lives any more. One that is still connected may have a call under
        way, and is let be until a later time."""
        ready = grpc.ChannelConnectivity.READY
        dead = [a for a, channel in self._open.items() if a not in alive and channel.get_state() is not ready]
        await asyncio.gather(*(self._open.pop(address).close() for address in dead))

    async def close(self) -> None:
        """Closes all of them; running calls are cancelled."""
        await asyncio.gather(*(channel.close() for channel in self._open.values()))
        self._open.clear()


@contextmanager
def our_errors(peer: str) -> Iterator[None]:
    """Turns a peer's status into the MeshError that it stands for."""
    try:
        yield
    except aio.AioRpcError as error:
        raise from_rpc(error, peer) from error


async def unary(call: Awaitable[T], peer: str) -> T:
    """Awaits a unary call; errors are MeshErrors."""
    with our_errors(peer):
        return await call


async def stream(
    call: aio.UnaryStreamCall[Any, T] | aio.StreamStreamCall[Any, T], peer: str
) -> AsyncGenerator[T, None]:
    """Reads what the server streams; errors are MeshErrors, and leaving early cancels the call."""
    try:
        with our_errors(peer):
            async for message in call:
                yield message
    finally:
        call.cancel()


def limit(own_s: float | None = CALL_S) -> float | None:
    """The `timeout` of a call: its own, cut to what the served request has left."""
    return deadline.left(own_s)
