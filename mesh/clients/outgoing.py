"""What a client says on a stream, in order; it ends with the call, which gRPC does not see to."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

from grpc import aio

T = TypeVar("T")


class Outgoing(Generic[T]):
    """Begins with `first`. `say` never waits; who bounds what waits here is the caller."""

    def __init__(self, first: T) -> None:
        self._waiting: asyncio.Queue[T | None] = asyncio.Queue()
        self._waiting.put_nowait(first)

    def say(self, message: T) -> None:
        """After all that was said before."""
        self._waiting.put_nowait(message)

    def finish(self) -> None:
        """Nothing more is said: the server ends the stream."""
        self._waiting.put_nowait(None)

    async def messages(self) -> AsyncIterator[T]:
        """What gRPC is given."""
        while (message := await self._waiting.get()) is not None:
            yield message

    def end_with(self, call: aio.StreamStreamCall[T, Any]) -> None:
        """Finishes when the server ends the call: gRPC's task would wait on for what is said next, and be lost."""
        call.add_done_callback(lambda _: self.finish())
