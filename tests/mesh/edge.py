"""A server on a real socket whose every method does what a test says, behind the interceptor that our services have."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health, health_pb2_grpc

from mesh.clients.channel import connect, stream, unary
from mesh.interceptor import Surround

SERVICE = "test.Edge"
Context = aio.ServicerContext[Any, Any]
Behave = Callable[[Context], Awaitable[None]]


class Shape(StrEnum):
    """The four shapes of an RPC, and a server stream whose handler writes instead of yielding."""

    UNARY_UNARY = "UnaryUnary"
    UNARY_STREAM = "UnaryStream"
    STREAM_UNARY = "StreamUnary"
    STREAM_STREAM = "StreamStream"
    WRITTEN_STREAM = "WrittenStream"


class Edge:
    """Each method awaits `behave`, and answers "done"; a streaming one has said "begun" before."""

    def __init__(self) -> None:
        self.behave: Behave
        self.health = health.aio.HealthServicer()
        self.channel: aio.Channel
        self.address = ""

    async def call(self, shape: Shape, *, timeout: float | None = 30.0) -> list[bytes]:
        """All that the method answers; errors are MeshErrors."""
        if shape is Shape.UNARY_UNARY:
            return [await unary(self.raw(shape, timeout=timeout), "edge")]
        if shape is Shape.STREAM_UNARY:
            ask: Any = self.channel.stream_unary(f"/{SERVICE}/{shape}")
            return [await unary(ask(iter([b"ask"]), timeout=timeout), "edge")]
        return [message async for message in self.open(shape, timeout=timeout)]

    def open(self, shape: Shape, *, timeout: float | None = 30.0) -> AsyncGenerator[bytes, None]:
        """The answers of a streaming method, one by one."""
        name = f"/{SERVICE}/{shape}"
        if shape is Shape.STREAM_STREAM:
            chat: Any = self.channel.stream_stream(name)
            return stream(chat(iter([b"ask"]), timeout=timeout), "edge")
        ask: Any = self.channel.unary_stream(name)
        return stream(ask(b"ask", timeout=timeout), "edge")

    async def raw(self, method: str, *, timeout: float | None = 30.0) -> bytes:
        """The answer of a unary method; errors are gRPC's own."""
        ask: Any = self.channel.unary_unary(f"/{SERVICE}/{method}")
        answer: bytes = await ask(b"ask", timeout=timeout)
        return answer

    def handlers(self) -> dict[str, Any]:
        """The service's methods, without serializers: messages are bytes."""
        return {
            Shape.UNARY_UNARY: grpc.unary_unary_rpc_method_handler(self._answer),
            Shape.STREAM_UNARY: grpc.stream_unary_rpc_method_handler(self._answer),
            Shape.UNARY_STREAM: grpc.unary_stream_rpc_method_handler(self._answers),
            Shape.STREAM_STREAM: grpc.stream_stream_rpc_method_handler(self._answers),
            Shape.WRITTEN_STREAM: grpc.unary_stream_rpc_method_handler(self._write),
        }

    async def _answer(self, request: Any, context: Context) -> bytes:
        await self.behave(context)
        return b"done"

    async def _answers(self, request: Any, context: Context) -> AsyncIterator[bytes]:
        yield b"begun"
        await self.behave(context)
        yield b"done"

    async def _write(self, request: Any, context: Context) -> None:
        await context.write(b"begun")
        await self.behave(context)
        await context.write(b"done")


@asynccontextmanager
async def edge() -> AsyncIterator[Edge]:
    """Serves until the block ends."""
    one, server = Edge(), aio.server(interceptors=[Surround()])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, one.handlers()),))
    health_pb2_grpc.add_HealthServicer_to_server(one.health, server)
    one.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    one.channel = connect(one.address)
    try:
        yield one
    finally:
        await one.channel.close()
        await server.stop(None)
