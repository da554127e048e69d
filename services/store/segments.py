"""A piece of shared memory that the store alone can write. Which checkpoint lies in it is none of its business."""

import contextlib
import errno
import fcntl
import mmap
import os
import threading
from pathlib import Path

from mesh.errors import Unsuitable
from mesh.mapping import HUGE_BYTES, Mapping

F_SEAL_FUTURE_WRITE = 0x10  # linux/fcntl.h; the fcntl module of Python 3.11 does not name it
MADV_POPULATE_WRITE, MADV_COLLAPSE = 23, 25  # linux/mman.h, since 5.14 and 6.1
STEP_BYTES = 16 << 20  # enlarged at a time: a few milliseconds' work, or tens where a host gives the memory first
SMAPS = Path("/proc/self/smaps")


class Segment:
    """A memfd that is sealed from the start: it never shrinks, and only the mapping made here can write.

    So a segment may be filled again once nobody else has it, which spares the kernel clearing fresh pages;
    `shared` asks the kernel, not our own books, so a worker's mapping never changes under it.
    """

    LEAST_BYTES = mmap.PAGESIZE

    def __init__(self, size_bytes: int, room_bytes: int = 0, *, collapse: int = MADV_COLLAPSE) -> None:
        """It can grow to `room_bytes`. `collapse` is the advice that makes 2 MiB pages of what is there."""
        self.bytes, self._collapse = max(size_bytes, self.LEAST_BYTES), collapse
        self.ready_bytes = 0  # so far its pages are as large as they get
        self._enlarging = threading.Lock()
        self._closed = False
        self._fd = os.memfd_create("whimbrel-part", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self._fd, self.bytes)
            # The seal allows no further mapping that can write, so this one reaches beyond the end as it is now.
            self._map = Mapping(max(self.bytes, room_bytes), writable=True)
            self._map.place(self._fd, 0, self._map.bytes, ours=True)
            with contextlib.suppress(OSError):  # a kernel without huge pages
                self._map.advise(mmap.MADV_HUGEPAGE, 0, self._map.bytes)
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE)
        except BaseException:
            os.close(self._fd)
            raise
        self.view = self._map.view[: self.bytes]

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
        """Adds fresh pages at the end, within its room."""
        if size_bytes > self._map.bytes:
            raise ValueError(f"a segment with room for {self._map.bytes} bytes cannot have {size_bytes}")
        if size_bytes > self.bytes:
            os.ftruncate(self._fd, size_bytes)
            self.ready_bytes = min(self.ready_bytes, self.bytes // HUGE_BYTES * HUGE_BYTES)
            self.bytes = size_bytes
            self.view.release()
            self.view = self._map.view[:size_bytes]

    def enlarge(self) -> None:
        """Makes more of it ready, STEP_BYTES at most: a 2 MiB page for every 512 that are there or would be fetched.

        What lies there stays, whoever maps it. The kernel may not be able to; then the pages are small. On a thread.
        """
        with self._enlarging:
            if self._closed:
                return
            start = self.ready_bytes
            end = min(start + STEP_BYTES, self.bytes // HUGE_BYTES * HUGE_BYTES)
            try:
                for extent in range(start, end, HUGE_BYTES):
                    self._map.advise(MADV_POPULATE_WRITE, extent, mmap.PAGESIZE)  # of nothing, nothing is made
                if start < end:
                    self._map.advise(self._collapse, start, end - start)
            except OSError:  # an older kernel, or memory too scattered, which more attempts would only find again
                end = self.bytes
            self.ready_bytes = end if self.bytes - end >= HUGE_BYTES else self.bytes

    def touch(self) -> None:
        """Has the kernel find and clear all pages now, on a thread, so that no load waits for that. Raises OSError."""
        while not self.ready:
            self.enlarge()
        try:
            self._map.advise(MADV_POPULATE_WRITE, 0, self.bytes)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            for page in range(0, self.bytes, mmap.PAGESIZE):  # an older kernel
                self.view[page] |= 0

    def huge_bytes(self) -> int:
        """Bytes of it that this process has mapped in 2 MiB pages."""
        name, found = f"{self._map.address:x}-", False
        for line in SMAPS.read_text().splitlines():
            if "-" in line.split(" ", 1)[0]:
                found = line.startswith(name)
            elif found and line.startswith("ShmemPmdMapped:"):
                return int(line.split()[1]) << 10
        return 0

    def close(self) -> None:
        """Gives the memory back to the kernel; large ones take a while, so call it on a thread."""
        with self._enlarging:
            self._closed = True
            self.view.release()
            self._map.close()
            os.close(self._fd)

    @property
    def ready(self) -> bool:
        """Whether nothing is left to enlarge."""
        return self._closed or self.ready_bytes == self.bytes

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
    """Whether segments get 2 MiB pages on this machine, which one of them tries."""
    segment = Segment(HUGE_BYTES)
    try:
        segment.touch()
        return segment.huge_bytes() == HUGE_BYTES
    except OSError:  # no memory, or no /proc
        return False
    finally:
        segment.close()
