"""Threads that write to memory of ours, or hold views of it: whoever gives that memory back waits for them first."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any


async def ended(runs: Sequence[asyncio.Future[Any]]) -> None:
    """Waits, however often cancelled, for threads about to return; what they failed with is for others to raise."""
    while pending := [run for run in runs if not run.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError:
            continue  # the cancellation that brought us here is raised again by our caller
    for run in runs:
        if not run.cancelled():
            run.exception()


@asynccontextmanager
async def ending_with(failure: asyncio.Future[None]) -> AsyncIterator[None]:
    """A block that ends, whatever it waits for, with the error that `failure` gets."""

    async def watch() -> None:
        await failure

    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch())
            try:
                yield
            finally:
                watching.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
