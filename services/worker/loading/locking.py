"""Page-locking of what copies start from: ranges of the mappings of a load, locked ahead of the copies and let go of
behind them, on threads of their own, so that neither adds its time to that of the copies."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import structlog

from mesh.checkpoint.layout import Manifest
from mesh.mapping import Mapping
from services.worker.loading.piece import Piece

log = structlog.get_logger()
LOCK_BYTES = 64 << 20  # of one range
AHEAD = 4  # ranges locked, or about to be, behind the one that is copied

Range = tuple[Mapping, int]  # whose range it is, and where that starts


class PageLocks:
    """Of one load. Called from the thread that copies; `lock` and `unlock` are called on one thread each and raise
    OSError: with the first that `lock` raises, no further range is tried."""

    def __init__(
        self, manifest: Manifest, lock: Callable[[Mapping, int, int], None], unlock: Callable[[Mapping, int], None]
    ) -> None:
        self._manifest, self._lock, self._unlock = manifest, lock, unlock
        self._locker = ThreadPoolExecutor(1, thread_name_prefix="locks")
        self._unlocker = ThreadPoolExecutor(1, thread_name_prefix="unlocks")
        self._locked: dict[Range, Future[bool]] = {}
        self._needed: dict[Range, int] = {}  # bytes that are still to be copied from there
        self._unlocked: dict[Range, Future[None]] = {}
        self._refused = False

    def ready(self, home: Mapping, at: int) -> bool:
        """Whether the range around `at` is page-locked; waits for that, and has the next ones begun."""
        start = at // LOCK_BYTES * LOCK_BYTES
        for begin in range(start, min(home.bytes, start + (1 + AHEAD) * LOCK_BYTES), LOCK_BYTES):
            if (home, begin) not in self._locked and not self._refused:
                self._locked[home, begin] = self._locker.submit(self._try, home, begin)
        found = self._locked.get((home, start))
        return found is not None and found.result()

    def copied(self, piece: Piece, at: int, count: int) -> None:
        """Bytes of a piece, from `at` of its home on, need it no more; a range that nothing needs is let go of."""
        if piece.home is None or not piece.stays or not self._locked:
            return
        begun = piece.home, at // LOCK_BYTES * LOCK_BYTES
        if begun not in self._needed:
            self._count(piece.home, self._manifest.units[piece.unit].part)
        self._needed[begun] -= count
        if not self._needed[begun] and begun not in self._unlocked:
            self._let_go(begun)

    def close(self) -> None:
        """Ends all page-locking, and waits for that. Raises OSError."""
        self._refused = True
        self._locker.shutdown(cancel_futures=True)
        for one in self._locked.keys() - self._unlocked.keys():
            self._let_go(one)
        self._unlocker.shutdown()
        for gone in self._unlocked.values():
            gone.result()

    def _try(self, home: Mapping, start: int) -> bool:
        if self._refused:
            return False
        try:
            self._lock(home, start, min(LOCK_BYTES, home.bytes - start))
        except OSError as error:
            self._refused = True
            log.warning("shared memory cannot be page-locked, so copies go through a staging ring", why=str(error))
            return False
        return True

    def _let_go(self, one: Range) -> None:
        locked = self._locked.get(one)
        if locked is not None and not locked.cancelled() and locked.result():
            self._unlocked[one] = self._unlocker.submit(self._unlock, *one)

    def _count(self, home: Mapping, part: int) -> None:
        """Of every range of a part: units lie in it, with gaps between them."""
        self._needed |= {(home, start): 0 for start in range(0, home.bytes, LOCK_BYTES)}
        for unit in self._manifest.units:
            if unit.part == part:
                for begin, count in _overlaps(unit.offset, unit.bytes):
                    self._needed[home, begin] += count


def _overlaps(start: int, count: int) -> Iterator[tuple[int, int]]:
    """Where each range begins that has some of these bytes, and how many of them."""
    end = start + count
    while start < end:
        begin = start // LOCK_BYTES * LOCK_BYTES
        border = min(end, begin + LOCK_BYTES)
        yield begin, border - start
        start = border
