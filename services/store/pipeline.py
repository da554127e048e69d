"""The readers, and what asks them: one call fills a checkpoint's memory, another a ring."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Self

import structlog

from mesh.checkpoint.errors import CorruptUnit
from services.store.activity import Activity
from services.store.catalog import Stored
from services.store.disk import PartFile
from services.store.fill import Fill, Tally
from services.store.memory import Place
from services.store.resident import Resident
from services.store.turns import Turns, Urgency, Work

log = structlog.get_logger()


class _Told:
    """Brings what readers say to the loop, many things at a time; the readers never wait for it."""

    def __init__(self, arrived: Callable[[int], None], moved: Callable[[int], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived, self._moved = arrived, moved
        self._units: deque[int] = deque()
        self._called = False

    def arrived(self, unit: int) -> None:
        self._units.append(unit)
        if not self._called:
            self._called = True
            self._loop.call_soon_threadsafe(self.flush)

    def moved(self, bytes_done: int) -> None:
        self._loop.call_soon_threadsafe(self._moved, bytes_done)

    def flush(self) -> None:
        """On the loop."""
        self._called = False
        while self._units:
            self._arrived(self._units.popleft())


class Pipeline:
    """`threads` readers for all that is read. Use as a context manager; end every call before it closes."""

    def __init__(self, threads: int, chunk_bytes: int, *, verify: bool, activity: Activity | None = None) -> None:
        self.chunk_bytes, self.verify = chunk_bytes, verify
        self._activity = activity or Activity()
        self.tally = Tally()  # of everything so far
        self._turns = Turns(threads)

    def __enter__(self) -> Self:
        self._turns.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._turns.__exit__(*exc)

    async def fill(
        self,
        stored: Stored,
        resident: Resident,
        units: Sequence[int],
        places: Mapping[int, Place],
        *,
        urgency: Urgency,
        arrived: Callable[[int], None],
        moved: Callable[[int], None],
        keep_going: bool = False,
    ) -> Mapping[int, CorruptUnit | OSError]:
        """Brings units into their memory: those in `places` from there, the others from the part files.

        `arrived(unit)` and `moved(bytes_done)` are called on this loop. Returns after every reader has let go, also
        when cancelled; what arrived until then has been told. Raises CorruptUnit, and OSError when the disk fails;
        when told to keep going, it returns the units that were lost instead.
        """
        told, began_s = _Told(arrived, moved), time.monotonic()
        with ExitStack() as stack:
            needed = {resident.manifest.units[unit].part for unit in units if unit not in places}
            fill = Fill(
                resident,
                units,
                {part: stack.enter_context(PartFile(stored.part_paths[part])) for part in needed},
                places,
                told,
                chunk_bytes=self.chunk_bytes,
                verify=self.verify,
                keep_going=keep_going,
            )
            try:
                async with self.working(fill, urgency) as working:
                    await working.wait()
            finally:
                told.flush()
                fill.release()
                self.tally += fill.tally
        _log_read(resident.digest, fill.tally, time.monotonic() - began_s)
        return fill.lost

    @asynccontextmanager
    async def working(self, work: Work, urgency: Urgency) -> AsyncIterator["Working"]:
        """Gives the readers work. Leaving stops it, and returns when nobody is at it any more."""
        with self._activity.busy():
            working = Working(self._turns, work, urgency)
            try:
                yield working
            finally:
                working.stop()
                await until_done(working.ended)


class Working:
    """Work under way. `ended` is done when nobody is at it any more, whatever the reason."""

    def __init__(self, turns: Turns, work: Work, urgency: Urgency) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._turns = turns

        def ended() -> None:
            loop.call_soon_threadsafe(self.ended.set_result, None)

        self._ticket = turns.add(work, urgency, ended)

    async def wait(self) -> None:
        """Until it has ended. Raises what ended it early."""
        await asyncio.wait([self.ended])
        if self._ticket.failure:
            raise self._ticket.failure

    def wake(self) -> None:
        """It has something to do again."""
        self._turns.wake()

    def stop(self) -> None:
        """It gets no more turns."""
        self._turns.stop(self._ticket)


async def until_done(future: asyncio.Future[None]) -> None:
    """Waits, however often cancelled, for readers about to let go: until then they write to our memory."""
    cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


def _log_read(digest: str, tally: Tally, took_s: float) -> None:
    log.info(
        "checkpoint read into memory",
        digest=digest,
        load_s=round(took_s, 4),
        gb_per_s=round(tally.total_bytes / max(took_s, 1e-9) / 1e9, 2),
        memory_bytes=tally.memory_bytes,
        direct_bytes=tally.direct_bytes,
        buffered_bytes=tally.buffered_bytes,
    )
