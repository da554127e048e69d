"""A piece of shared memory that the store alone can write. Which checkpoint lies in it is none of its business."""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
from pathlib import Path

import numpy as np

from mesh.errors import Unsuitable

F_SEAL_FUTURE_WRITE = 0x10  # linux/fcntl.h; the fcntl module of Python 3.11 does not name it
MADV_POPULATE_WRITE = 23  # linux/mman.h, since 5.14
HUGE_PAGE = 2 << 20
SHMEM_HUGE = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
_libc = ctypes.CDLL(None, use_errno=True)


class Segment:
    """A memfd that is sealed from the start: it never shrinks, and only the mapping made here can write.

    So a segment may be filled again once nobody else has it, which spares the kernel clearing fresh pages;
    `shared` asks the kernel, not our own books, so a worker's mapping never changes under it.
    """

    LEAST_BYTES = mmap.PAGESIZE

    def __init__(self, size_bytes: int) -> None:
        self.bytes = max(size_bytes, self.LEAST_BYTES)
        self._fd = os.memfd_create("whimbrel-part", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._fd, self.bytes)
            self._map = mmap.mmap(self._fd, self.bytes)
            with contextlib.suppress(OSError):  # a kernel without huge pages
                self._map.madvise(mmap.MADV_HUGEPAGE)
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE)
        except BaseException:
            os.close(self._fd)
            raise
        self.view = memoryview(self._map)

    def read_only(self) -> int:
        """A new descriptor to hand to a worker; it can be mapped shared and read-only on every kernel."""
        return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def shared(self) -> bool:
        """Whether a `read_only` descriptor, or a mapping made from one, is alive in any process.

        The kernel grants a write lease only while nobody else has the file open; mappings and descriptors under
        way in a socket count. Raises OSError where it has no leases.
        """
        probe = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.fcntl(probe, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(probe, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return True
            raise
        finally:
            os.close(probe)
        return False

    def grow(self, size_bytes: int) -> None:
        """Adds fresh pages at the end. Slices of the old `view` must be gone."""
        if size_bytes > self.bytes:
            self.view.release()
            self._map.resize(size_bytes)
            self.bytes = size_bytes
            self.view = memoryview(self._map)

    def touch(self) -> None:
        """Has the kernel find and clear all pages now, on a thread, so that no load waits for that. Raises OSError."""
        with self.view[:] as view:
            at = np.frombuffer(view, np.uint8).ctypes.data
            populated = _libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(self.bytes), MADV_POPULATE_WRITE)
            if populated == 0:
                return
            if ctypes.get_errno() != errno.EINVAL:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            ctypes.memset(at, 0, self.bytes)  # an older kernel

    def close(self) -> None:
        """Gives the memory back to the kernel; large ones take a while, so call it on a thread."""
        self.view.release()
        self._map.close()
        os.close(self._fd)

    @property
    def _path(self) -> str:
        return f"/proc/self/fd/{self._fd}"


def check_kernel() -> None:
    """Raises Unsuitable, saying what to do, where the kernel cannot tell who has a segment."""
    segment = Segment(Segment.LEAST_BYTES)
    try:
        segment.shared()
    except OSError as error:
        raise Unsuitable(
            f"the kernel grants no file leases ({error.strerror}); run: sysctl fs.leases-enable=1", reason="NO_LEASES"
        ) from error
    finally:
        segment.close()


def huge_pages() -> bool:
    """Whether segments get 2 MiB pages on this machine."""
    try:
        modes = SHMEM_HUGE.read_text()
    except OSError:
        return False
    return "[never]" not in modes and "[deny]" not in modes
