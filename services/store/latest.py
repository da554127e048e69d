"""The newest value of something that changes while a task runs. A slow reader skips values, and misses no last one."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """One writer, any number of readers, all on one loop; nothing queues up."""

    def __init__(self) -> None:
        self._value: T
        self._version = 0
        self._moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, value: T) -> None:
        """Replaces the value and wakes the readers."""
        self._value = value
        self._version += 1
        self._moved.set_result(None)
        self._moved = asyncio.get_running_loop().create_future()

    async def until(self, task: asyncio.Future[Any]) -> AsyncGenerator[T, None]:
        """The value, whenever there is a newer one, until `task` is done, however it ended."""
        seen = 0
        while True:
            if self._version > seen:
                seen = self._version
                yield self._value
            elif task.done():
                return
            else:
                await asyncio.wait((task, self._moved), return_when=asyncio.FIRST_COMPLETED)
