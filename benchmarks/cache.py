"""The kernel's page cache: files put out of it for a cold read, or into it for a warm one. Blocking."""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.series import BenchmarkBroken

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
READ_BYTES = 16 << 20
TRIES = 3
_libc = ctypes.CDLL(None, use_errno=True)


def drop(paths: Iterable[Path], *, others: bool = True) -> None:
    """No page of these files is cached afterwards, which is checked; as root, nor `others`' clean pages.

    Write what is dirty first (os.sync): dirty pages stay. Raises BenchmarkBroken when pages are left.
    """
    paths = list(paths)
    for path in paths:
        _forget(path)
    if others:
        with contextlib.suppress(PermissionError):
            DROP_CACHES.write_text("1")
    for path in paths:
        if left := cached_pages(path):
            raise BenchmarkBroken(f"{left} pages of {path} stay in the page cache; does another process map it?")


def read(paths: Iterable[Path]) -> None:
    """Every page of these files is cached afterwards. Raises BenchmarkBroken when there is no memory for that."""
    paths = list(paths)
    for _ in range(TRIES):
        _read(paths)
        missing = {path: left for path in paths if (left := _pages(path) - cached_pages(path))}
        if not missing:
            return
    raise BenchmarkBroken(f"not all pages stay in the page cache; free some memory: {missing}")


def cached_pages(path: Path) -> int:
    """How many pages of a file are in the page cache."""
    size = path.stat().st_size
    if not size:
        return 0
    resident = np.zeros(_pages(path), np.uint8)
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped:
        base = np.frombuffer(mapped, np.uint8)
        found = _libc.mincore(
            ctypes.c_void_p(base.ctypes.data), ctypes.c_size_t(size), ctypes.c_void_p(resident.ctypes.data)
        )
        del base
    if found:
        raise BenchmarkBroken(f"mincore of {path}: {os.strerror(ctypes.get_errno())}")
    return int(np.count_nonzero(resident & 1))


def _pages(path: Path) -> int:
    return -(-path.stat().st_size // mmap.PAGESIZE)


def _read(paths: Sequence[Path]) -> None:
    buffer = bytearray(READ_BYTES)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _forget(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
