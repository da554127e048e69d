"""A pool's bytes for threads beside the engine's, which read and write blocks while it steps. What a block holds, and
whether it may be written to, is their callers' business."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.worker.engine.pool import KVPool

Bytes = NDArray[np.uint8]
D = TypeVar("D", Tensor, Bytes)
Mark = torch.cuda.Event | None  # a moment of the engine's stream; None where there is no stream


class Beside(Protocol):
    """Bytes of blocks lie layer by layer, keys before values, block by block."""

    block_bytes: int

    def buffer(self, blocks: int) -> Bytes:
        """Host memory for so many blocks, from which and to which copying is quick."""

    def mark(self) -> Mark:
        """What the engine has asked of its device so far; only its thread calls."""

    def read(self, blocks: Sequence[int], into: Bytes, after: Mark) -> None:
        """Copy blocks of the pool, as they are once `after` has passed."""

    def write(self, blocks: Sequence[int], data: Bytes, after: Mark) -> None:
        """Put what `read` gave into blocks that the engine has let go of by `after`. It is there on return."""


class HostBeside:
    """Of a pool in this machine's own memory, where a step is over when the engine says so. numpy lets other threads
    run while it copies, and takes no threads of its own."""

    def __init__(self, pool: KVPool) -> None:
        self.block_bytes = pool.spec.block_bytes
        self._halves = [half.numpy() for half in pool.halves]

    def buffer(self, blocks: int) -> Bytes:
        """See Beside."""
        return np.empty(blocks * self.block_bytes, dtype=np.uint8)

    def mark(self) -> Mark:
        """See Beside."""
        return None

    def read(self, blocks: Sequence[int], into: Bytes, after: Mark) -> None:
        """See Beside."""
        for half, part in zip(self._halves, _parts(into, self._halves, len(blocks)), strict=True):
            if run := _run(blocks):
                np.copyto(part, half[run])
            else:
                np.take(half, blocks, axis=0, out=part, mode="clip")  # raising would need a copy in between

    def write(self, blocks: Sequence[int], data: Bytes, after: Mark) -> None:
        """See Beside."""
        for half, part in zip(self._halves, _parts(data, self._halves, len(blocks)), strict=True):
            half[_run(blocks) or list(blocks)] = part


class CudaBeside:
    """Of a pool on a GPU: copies have a stream of their own, which waits for the engine's and for nobody else's, and
    go through page-locked memory. Each crosses the bus at once: a kernel that follows a copy waits for a turn where
    workers share a card, and a layer's would each wait for one of its own."""

    def __init__(self, pool: KVPool) -> None:
        self.block_bytes = pool.spec.block_bytes
        self._halves, self._device = pool.halves, pool.buffer.device
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def buffer(self, blocks: int) -> Bytes:
        """See Beside."""
        return torch.empty(blocks * self.block_bytes, dtype=torch.uint8, pin_memory=True).numpy()

    def mark(self) -> Mark:
        """See Beside."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def read(self, blocks: Sequence[int], into: Bytes, after: Mark) -> None:
        """See Beside."""
        with self._streaming(after):
            gathered = gather(self._halves, torch.tensor(blocks, device=self._device))
            torch.from_numpy(into).copy_(gathered, non_blocking=True)
            self._stream.synchronize()

    def write(self, blocks: Sequence[int], data: Bytes, after: Mark) -> None:
        """See Beside."""
        with self._streaming(after):
            there = torch.from_numpy(data).to(self._device, non_blocking=True)
            scatter(self._halves, torch.tensor(blocks, device=self._device), there)
            self._stream.synchronize()

    @contextmanager
    def _streaming(self, after: Mark) -> Iterator[None]:
        with torch.inference_mode(), torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            if after is not None:
                self._stream.wait_event(after)
            yield


def beside(pool: KVPool) -> Beside:
    """What suits the pool's device."""
    return CudaBeside(pool) if pool.buffer.device.type == "cuda" else HostBeside(pool)


def gather(halves: Sequence[Tensor], index: Tensor) -> Tensor:
    """What `Beside.read` gives of these blocks, on their own device."""
    count_bytes = len(index) * sum(half.shape[1] for half in halves)
    into = torch.empty(count_bytes, dtype=torch.uint8, device=index.device)
    for half, part in zip(halves, _parts(into, halves, len(index)), strict=True):
        torch.index_select(half, 0, index, out=part)
    return into


def scatter(halves: Sequence[Tensor], index: Tensor, data: Tensor) -> None:
    """The reverse of `gather`."""
    for half, part in zip(halves, _parts(data, halves, len(index)), strict=True):
        half.index_copy_(0, index, part)


def _parts(data: D, halves: Sequence[Tensor | Bytes], blocks: int) -> Iterator[D]:
    """Bytes [blocks, block bytes] of each layer's keys, then of its values."""
    start = 0
    for half in halves:
        end = start + blocks * half.shape[1]
        yield data[start:end].reshape(blocks, half.shape[1])
        start = end


def _run(blocks: Sequence[int]) -> slice | None:
    """Blocks that lie one after another."""
    run = slice(blocks[0], blocks[0] + len(blocks))
    return run if list(blocks) == list(range(run.start, run.stop)) else None
