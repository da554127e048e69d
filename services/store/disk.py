"""One part file, each range read the fastest way there is: O_DIRECT from the disk, buffered from the page cache."""

import ctypes
import errno
import mmap
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
import structlog

log = structlog.get_logger()
PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)


class PartFile:
    """A part, open for reading by several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with ExitStack() as stack:
            self._buffered = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, self._buffered)
            self._direct = _open_direct(path)
            if self._direct is not None:
                stack.callback(os.close, self._direct)
            self._pages = _PageCache(self._buffered, os.fstat(self._buffered).st_size)
            stack.callback(self._pages.close)
            self._closing = stack.pop_all()
        self._direct_works = self._direct is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.close()

    def goes_direct(self, offset: int, length: int) -> bool:
        """Whether the range is better read past the page cache: it is not in there, and the file system lets us."""
        return self._direct_works and not self._pages.hold(offset, length)

    def read_into(self, view: memoryview, offset: int, *, direct: bool) -> int:
        """Fills `view` from `offset`; returns its length, or less where the file ends. All three page-aligned."""
        if not (direct and self._direct is not None):
            return _read(self._buffered, view, offset)
        try:
            return _read(self._direct, view, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            log.warning("no direct reads here; reading through the page cache", path=str(self._path))
            self._direct_works = False
            return _read(self._buffered, view, offset)


def _read(fd: int, view: memoryview, offset: int) -> int:
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done


def _open_direct(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        log.warning("no direct reads here; reading through the page cache", path=str(path))
        return None


class _PageCache:
    """Which pages of a file are in memory. Asking by a read (RWF_NOWAIT) would start the kernel's read-ahead."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        self._bytes = size_bytes
        self._map = mmap.mmap(fd, size_bytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) if size_bytes else None
        self._base = np.frombuffer(self._map, np.uint8).ctypes.data if self._map else 0

    def hold(self, offset: int, length: int) -> bool:
        """Whether all of the range, as far as the file goes, is cached."""
        length = min(length, self._bytes - offset)
        if length <= 0:
            return False
        resident = ctypes.create_string_buffer(-(-length // PAGE))
        found = _libc.mincore(ctypes.c_void_p(self._base + offset), ctypes.c_size_t(length), resident) == 0
        return found and 0 not in resident.raw

    def close(self) -> None:
        if self._map:
            self._map.close()
