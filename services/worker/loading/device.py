"""What a device owes a load: a checkpoint's parts in its memory. The twins are host.py and cuda.py."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from torch import Tensor

from mesh.clients.store import Stat
from mesh.facts import Tier
from mesh.requests import LoadProgress

Tell = Callable[[LoadProgress], None]


class Weights:
    """A checkpoint's `parts` on a device, uint8 [bytes] each: in place from the start, while their bytes arrive."""

    def __init__(self, parts: list[Tensor], arriving: asyncio.Task[Tier]) -> None:
        self.parts, self._arriving = parts, arriving

    async def complete(self) -> Tier:
        """Waits for the last byte; the farthest tier that any came from."""
        return await asyncio.shield(self._arriving)


class Device(Protocol):
    """Where replicas run."""

    name: str
    """As the worker's facts have it."""

    def load(self, address: str, stat: Stat, tell: Tell) -> AbstractAsyncContextManager[Weights]:
        """The weights of a checkpoint of the store at `address`, for as long as the context is open; drop every view
        of them before it closes. Leaving it early stops the load within a chunk and frees all.

        Raises NoRoom, DataLoss, Unreachable, Broken: also while the context is open, until the weights are complete.
        """


@asynccontextmanager
async def arriving(parts: list[Tensor], work: Coroutine[Any, Any, Tier]) -> AsyncIterator[Weights]:
    """Runs what fills the parts beside the block, which its failure ends. The parts are cleared afterwards."""
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work, name="weights")
            try:
                yield Weights(parts, task)
            finally:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        parts.clear()
