"""disk -> dram: the reader threads, owned here, and one call that fills memory with a checkpoint."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import structlog

from mesh.checkpoint.layout import Manifest, total_bytes
from services.store.disk import PartFile
from services.store.fill import Fill, Tally

log = structlog.get_logger()


class Pipeline:
    """Reads checkpoints, one after the other: the threads take chunks in the order in which loads were asked for."""

    def __init__(self, threads: int, chunk_bytes: int, *, verify: bool) -> None:
        self._threads, self._chunk_bytes, self._verify = threads, chunk_bytes, verify
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="reader")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._readers.shutdown(cancel_futures=True)

    async def fill(
        self, manifest: Manifest, paths: Sequence[Path], views: Sequence[memoryview], tell: Callable[[int], None]
    ) -> Tally:
        """Reads the parts at `paths` into `views`; `tell(bytes_done)` is called on this loop, at most 20/s.

        Returns after every thread has let go, also when cancelled. Raises CorruptUnit; OSError when the disk fails.
        """
        loop, began_s = asyncio.get_running_loop(), time.monotonic()

        def tell_loop(bytes_done: int) -> None:
            loop.call_soon_threadsafe(tell, bytes_done)

        with ExitStack() as stack:
            sources = [stack.enter_context(PartFile(path)) for path in paths]
            fill = Fill(
                manifest,
                sources,
                views,
                chunk_bytes=self._chunk_bytes,
                verify=self._verify,
                tell=tell_loop,
            )
            stack.callback(fill.release)
            await self._run(fill)
        _log_load(manifest, fill.tally, time.monotonic() - began_s)
        return fill.tally

    async def _run(self, fill: Fill) -> None:
        runs = [self._readers.submit(fill.run) for _ in range(self._threads)]
        waits = [asyncio.wrap_future(run) for run in runs]
        try:
            await asyncio.wait(waits)
        finally:
            fill.stop()
            for run in runs:
                run.cancel()  # those that wait behind another load
            await _ended(waits)
            failures = [wait.exception() for wait in waits if not wait.cancelled()]
        for failure in filter(None, failures):
            raise failure


async def _ended(waits: Sequence[asyncio.Future[None]]) -> None:
    """Waits, however often cancelled, for threads about to return: until then they write to our memory."""
    while pending := [wait for wait in waits if not wait.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError:
            continue  # the cancellation that brought us here is raised again by our caller


def _log_load(manifest: Manifest, tally: Tally, took_s: float) -> None:
    log.info(
        "checkpoint read into memory",
        digest=manifest.digest,
        load_s=round(took_s, 4),
        gb_per_s=round(total_bytes(manifest) / max(took_s, 1e-9) / 1e9, 2),
        direct_bytes=tally.direct_bytes,
        buffered_bytes=tally.buffered_bytes,
    )
