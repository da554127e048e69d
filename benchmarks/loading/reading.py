"""Reading a file into memory that is there already, in the ways that are compared."""

import mmap
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class Way:
    """How many threads ask the disk for how much at a time, and whether past the page cache."""

    threads: int
    chunk_bytes: int
    direct: bool = True

    @property
    def text(self) -> str:
        """Such as "16 x 512 KiB"."""
        return f"{self.threads} x {self.chunk_bytes >> 10} KiB"


def _unheard(chunk: range) -> None:
    """Nobody waits for a chunk."""


def read_file(path: Path, view: memoryview, way: Way, arrived: Callable[[range], None] = _unheard) -> None:
    """Fills `view`, which is as long as the file and page-aligned; `arrived` hears of each chunk, on its thread."""
    descriptor = os.open(path, os.O_RDONLY | (os.O_DIRECT if way.direct else 0))
    chunks, lock = _chunks(len(view), way.chunk_bytes), threading.Lock()
    failures: list[OSError] = []

    def run() -> None:
        while True:
            with lock:
                chunk = next(chunks, None)
            if chunk is None or failures:
                return
            try:
                _fill(descriptor, view[chunk.start : chunk.stop], chunk.start)
            except OSError as error:
                failures.append(error)
            arrived(chunk)

    threads = [threading.Thread(target=run) for _ in range(way.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(descriptor)
    for failure in failures:
        raise failure


def fresh(size_bytes: int) -> mmap.mmap:
    """Memory that no page is behind yet, and only small ones will be."""
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def pool(size_bytes: int) -> mmap.mmap:
    """Memory in 2 MiB pages, as far as the kernel has them, all of it touched."""
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    np.frombuffer(memory, np.uint8)[:: mmap.PAGESIZE] = 0
    return memory


def _chunks(size_bytes: int, chunk_bytes: int) -> Iterator[range]:
    for start in range(0, size_bytes, chunk_bytes):
        yield range(start, min(start + chunk_bytes, size_bytes))


def _fill(descriptor: int, view: memoryview, offset: int) -> None:
    while len(view):
        count = os.preadv(descriptor, [view], offset)
        if not count:
            raise OSError(f"the file ended {len(view)} bytes early")
        view, offset = view[count:], offset + count
