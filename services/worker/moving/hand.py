"""A thread that moves bulk, and steps aside for the engine's and the event loop's on a busy machine."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from mesh.opening import C, opened

P = ParamSpec("P")
T = TypeVar("T")
NICER = 10  # than the process; where all cores are busy, a tenth of one is left for it


class Hand:
    """One of a stream's. It ends by `close`, once what it does has."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, f"bulk {name}", initializer=_step_aside)

    async def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """On the thread. Cancelled, it is done there all the same."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: work(*args, **kwargs))

    async def opened(self, work: Callable[P, C], *args: P.args, **kwargs: P.kwargs) -> C:
        """The same for what the caller closes. Cancelled, it is closed as soon as it is there."""
        return await opened(lambda: work(*args, **kwargs), self._executor)

    def close(self) -> None:
        """Waits for nothing."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _step_aside() -> None:
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + NICER))
