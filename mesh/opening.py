"""Opening on a thread what has to be closed: it is not lost when whoever waits for it leaves."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Protocol, TypeVar


class Closable(Protocol):
    """Such as a socket."""

    def close(self) -> None:
        """Lets go of it."""


C = TypeVar("C", bound=Closable | None)


async def opened(make: Callable[[], C], executor: Executor | None = None) -> C:
    """What `make` opens, if anything, for the caller to close. Cancelled, it is closed as soon as it is there."""
    handed: Future[C] = Future()
    handed.set_running_or_notify_cancel()  # who leaves does not stop it
    asyncio.get_running_loop().run_in_executor(executor, _hand, handed, make)
    try:
        return await asyncio.wrap_future(handed)
    except asyncio.CancelledError:
        handed.add_done_callback(_close)
        raise


def _hand(handed: Future[C], make: Callable[[], C]) -> None:
    try:
        handed.set_result(make())
    except BaseException as error:
        handed.set_exception(error)


def _close(handed: Future[C]) -> None:
    if not handed.exception() and (left := handed.result()) is not None:
        left.close()
