"""Host memory that is had page by page as it is written, and can be given back by range: address space alone costs
nothing."""

import mmap

import torch

MAP_NORESERVE = 0x4000  # Linux, <asm-generic/mman-common.h>; Python has no name for it yet


class Reservation:
    """`buffer` is uint8 [count_bytes]; what was never written, or was given back, reads as zeros."""

    def __init__(self, count_bytes: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        self._map = mmap.mmap(-1, count_bytes, flags=flags)
        self.buffer = torch.frombuffer(self._map, dtype=torch.uint8)

    def give_back(self, start: int, end: int) -> None:
        """Free the pages that lie wholly within bytes `start` to `end`."""
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = end // mmap.PAGESIZE * mmap.PAGESIZE
        if first < last:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)
