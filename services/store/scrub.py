"""Looking for damage before somebody needs the bytes: every unit on disk is read and hashed again, in its turn, slowly,
and never while a load wants the disk. What is damaged is quarantined and fetched again.
"""

import asyncio
import ctypes
import errno
import mmap
import os
import platform
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
from blake3 import blake3

from mesh.clock import Clock
from mesh.errors import MeshError
from services.store.activity import Activity
from services.store.catalog import Catalog, Stored
from services.store.pipeline import until_done
from services.store.quarantine import Quarantine

log = structlog.get_logger()
CURSOR = ".scrubbed"
CHUNK_BYTES = 1 << 20
LONGEST_NAP_S = 60.0
IOPRIO_SET = {"x86_64": 251, "aarch64": 30}  # linux/unistd.h
IOPRIO_WHO_PROCESS, IOPRIO_IDLE = 1, 3 << 13  # the calling thread; IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT
_libc = ctypes.CDLL(None, use_errno=True)
Repair = Callable[[Stored, int], Awaitable[None]]


class Scrub:
    """A pass over everything takes about `period_s`. Where it stands is kept on disk, so that restarts lose nothing."""

    def __init__(
        self,
        catalog: Catalog,
        quarantine: Quarantine,
        activity: Activity,
        repair: Repair,
        clock: Clock,
        *,
        period_s: float,
    ) -> None:
        self._catalog, self._quarantine, self._activity = catalog, quarantine, activity
        self._repair, self._clock, self._period_s = repair, clock, period_s
        self._cursor = catalog.root / CURSOR

    async def run(self) -> None:
        """Goes on until cancelled."""
        with ThreadPoolExecutor(1, thread_name_prefix="scrub", initializer=_lower_priority) as thread:
            done = await asyncio.to_thread(_read_cursor, self._cursor)
            while True:
                following = self._after(done)
                if following is None:
                    done = ""
                    await asyncio.sleep(self._nap_s(0, 0.0))
                    continue
                stored, unit = following
                await self._look_at(stored, unit, thread)
                done = _place(stored, unit)
                await asyncio.to_thread(_write_cursor, self._cursor, done)

    def _after(self, done: str) -> tuple[Stored, int] | None:
        """The unit on disk that comes next, by digest and index."""
        for stored in self._catalog.all():
            if stored.manifest.digest < done[:64]:
                continue
            for unit in sorted(stored.units_on_disk):
                if _place(stored, unit) > done:
                    return stored, unit
        return None

    async def _look_at(self, stored: Stored, index: int, thread: ThreadPoolExecutor) -> None:
        unit, hasher, loop = stored.manifest.units[index], blake3(), asyncio.get_running_loop()
        try:
            with _Reader(stored.part_paths[unit.part]) as reader:
                for start in range(0, unit.bytes, CHUNK_BYTES):
                    await self._activity.quiet()
                    began_s, count = self._clock.now(), min(CHUNK_BYTES, unit.bytes - start)
                    hashing = loop.run_in_executor(thread, reader.hash, hasher, unit.offset + start, count)
                    await until_done(hashing)  # it reads into what we are about to close
                    hashing.result()
                    await asyncio.sleep(self._nap_s(count, self._clock.now() - began_s))
            right = hasher.hexdigest() == unit.hash
        except OSError as error:
            log.warning("a unit cannot be read", digest=stored.manifest.digest, unit=unit.name, error=str(error))
            right = False
        if not right and index in stored.units_on_disk and self._catalog.is_current(stored):
            await self._mend(stored, index)

    async def _mend(self, stored: Stored, unit: int) -> None:
        await self._quarantine.on_corrupt(stored, unit, "the scrub found that it does not have its hash")
        if unit in stored.units_on_disk:
            return
        try:
            await self._repair(stored, unit)
            log.info("a damaged unit was fetched again", digest=stored.manifest.digest, unit=unit)
        except MeshError as error:
            log.warning(
                "a damaged unit cannot be had again", digest=stored.manifest.digest, unit=unit, why=error.message
            )

    def _nap_s(self, count: int, took_s: float) -> float:
        """So long that a pass takes the period; a small store is looked at more often, which costs nothing."""
        share = count / max(self._catalog.used_bytes, 1) if count else 1.0
        return min(max(0.0, share * self._period_s - took_s), LONGEST_NAP_S)


class _Reader:
    """A part file read past the page cache, where the file system lets us: what is cached says nothing of the disk."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._buffer = mmap.mmap(-1, CHUNK_BYTES)  # page-aligned, as O_DIRECT wants it

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._file)
        self._buffer.close()

    def hash(self, hasher: blake3, offset: int, count: int) -> None:
        """On the scrub's thread. Bytes that are not there are left out, which shows in the hash."""
        whole = -(-count // mmap.PAGESIZE) * mmap.PAGESIZE
        with memoryview(self._buffer) as view:
            got = os.preadv(self._file, [view[:whole]], offset)
            with view[: min(got, count)] as data:
                hasher.update(data)


def _lower_priority() -> None:
    """Reads of this thread come after everybody else's, on disks whose scheduler knows classes."""
    number = IOPRIO_SET.get(platform.machine())
    if number is None or _libc.syscall(number, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE) != 0:
        log.info("no idle class for the scrub's reads here; its pace alone holds it back")


def _place(stored: Stored, unit: int) -> str:
    return f"{stored.manifest.digest} {unit:08}"


def _read_cursor(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _write_cursor(path: Path, place: str) -> None:
    try:
        path.write_text(place)
    except OSError as error:
        log.warning("the scrub cannot note where it stands", error=str(error))
