"""Address space: a contiguous range that segments are mapped into, one behind the other, or fresh huge pages."""

import contextlib
import ctypes
import mmap
import os
from functools import cache

import numpy as np

HUGE_BYTES = 2 << 20
MAP_FIXED, MAP_NORESERVE = 0x10, 0x4000  # Linux; the mmap of Python 3.11 does not name them


class Mapping:
    """`size` bytes of address space from a huge page's border on; given back when the last view of them is gone.

    Readable from the start, as zeros. `writable`: what is written stays private to this process. Raises OSError.
    """

    def __init__(self, size: int, *, writable: bool) -> None:
        self.bytes, self._writable = size, writable
        self._protection = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
        whole = -(-size // HUGE_BYTES) * HUGE_BYTES + HUGE_BYTES
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        self._memory = mmap.mmap(-1, whole, flags=flags, prot=self._protection)  # ends with its last view
        start = -address_of(memoryview(self._memory)) % HUGE_BYTES
        self.address = address_of(memoryview(self._memory)) + start
        self.view = memoryview(self._memory)[start : start + size]

    def place(self, descriptor: int, offset: int, length: int, *, ours: bool = False) -> None:
        """Lays the first `length` bytes of a file over ours from `offset` on, which is on a page's border.

        Where it is not writable, the file's own pages are shared; else a page that is written is copied first, unless
        the file is `ours`: then what is written goes into it. Raises OSError.
        """
        if offset < 0 or length < 1 or offset % mmap.PAGESIZE or offset + length > self.bytes:
            raise ValueError(f"[{offset}, {offset + length}) is no range of {self.bytes} bytes")
        flags = MAP_FIXED | MAP_NORESERVE | (mmap.MAP_PRIVATE if self._writable and not ours else mmap.MAP_SHARED)
        wanted = self.address + offset
        if _libc().mmap(wanted, length, self._protection, flags, descriptor, 0) != wanted:
            raise _os_error()

    def advise(self, advice: int, offset: int, length: int) -> None:
        """madvise; other threads run meanwhile, as they do not with Python's own. Raises OSError."""
        if _libc().madvise(self.address + offset, length, advice):
            raise _os_error()

    def close(self) -> None:
        """Gives the addresses back now. Raises BufferError while somebody has a view, other than ours."""
        self.view.release()
        self._memory.close()

    def release(self) -> None:
        """Lets go of what is mapped and written, whoever still has a view: from now on there are zeros."""
        flags = MAP_FIXED | MAP_NORESERVE | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        if self.bytes and _libc().mmap(self.address, self.bytes, self._protection, flags, -1, 0) != self.address:
            raise _os_error()


def fresh(size: int) -> Mapping:
    """Memory of our own, in huge pages where the kernel gives them: those are filled in half the time."""
    mapping = Mapping(size, writable=True)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        mapping.advise(mmap.MADV_HUGEPAGE, 0, size)
    return mapping


def address_of(view: memoryview) -> int:
    """Where a view's bytes lie, for as long as somebody keeps them."""
    return int(np.frombuffer(view, np.uint8).ctypes.data)


def move(source: memoryview, address: int) -> None:
    """Copies all of `source` to `address`, where there must be room; other threads run meanwhile."""
    ctypes.memmove(address, address_of(source), source.nbytes)


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc


def _os_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
