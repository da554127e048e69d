"""python -m benchmarks.device: segments of shared memory into a device's, against the same copies from pinned memory.

The segments are the store's, in small pages and in large ones, with no store and no model behind: what is timed is
what CopyDevice does with pieces that are all there. On the host it times copies within memory.
"""

import argparse
import asyncio
import json
import mmap
import os
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from benchmarks import args
from benchmarks.machine import Machine
from benchmarks.report import row, say, say_machine
from benchmarks.series import Series
from mesh.checkpoint.layout import Manifest, Part, Unit, UnitKind
from mesh.errors import Unsuitable
from mesh.mapping import Mapping
from services.store.segments import MADV_COLLAPSE, Segment
from services.worker.loading.copying import COPY_BYTES, FLYING, Copier, Copies, copying
from services.worker.loading.cuda import open_cuda
from services.worker.loading.host import HostCopier
from services.worker.loading.piece import Piece, nothing

SEGMENT_BYTES = 64 << 20
UNIT_BYTES = 128 << 20
PAGES = {"small": mmap.MADV_NORMAL, "large": MADV_COLLAPSE}  # where the kernel makes large ones


def limit(copier: Copier, target: Tensor) -> float:
    """Seconds to fill the target from page-locked memory that lies ready: the fastest that copies of this size are."""
    slots = [copier.page_locked(COPY_BYTES) for _ in range(FLYING)]
    began_s = time.perf_counter()
    for index, offset in enumerate(range(0, target.numel(), COPY_BYTES)):
        copier.copy(target, offset, slots[index % FLYING][: target.numel() - offset])
    copier.mark()()
    return time.perf_counter() - began_s


class Unpinnable:
    """The same device, as if it page-locked no shared memory."""

    def __init__(self, copier: Copier) -> None:
        self.name, self.needs_pinned = copier.name, True
        self.allocate, self.page_locked, self.unpin = copier.allocate, copier.page_locked, copier.unpin
        self.copy, self.mark = copier.copy, copier.mark

    def pin(self, mapping: Mapping, start: int, size: int) -> None:
        """Refused."""
        raise OSError("as asked for")


class Keeping:
    """The same device, as if ending page-locking took no time: it is ended by `end`."""

    def __init__(self, copier: Copier) -> None:
        self.name, self.needs_pinned = copier.name, copier.needs_pinned
        self.allocate, self.page_locked, self.pin = copier.allocate, copier.page_locked, copier.pin
        self.copy, self.mark = copier.copy, copier.mark
        self._unpin, self._kept = copier.unpin, list[tuple[Mapping, int]]()

    def unpin(self, mapping: Mapping, start: int) -> None:
        """Later."""
        self._kept.append((mapping, start))

    def end(self) -> None:
        """What `unpin` has left."""
        while self._kept:
            self._unpin(*self._kept.pop())


@contextmanager
def shared(segments: Sequence[Segment]) -> Iterator[Mapping]:
    """The store's segments, mapped as a worker maps them; a new mapping each time, as each load has."""
    mapping = Mapping(len(segments) * SEGMENT_BYTES, writable=False)
    try:
        for index, segment in enumerate(segments):
            descriptor = segment.read_only()
            mapping.place(descriptor, index * SEGMENT_BYTES, SEGMENT_BYTES)
            os.close(descriptor)
        yield mapping
    finally:
        mapping.release()


@contextmanager
def pool(size: int, collapse: int) -> Iterator[list[Segment]]:
    """Touched segments with random bytes; `collapse` is the advice that makes their pages large."""
    segments = [Segment(SEGMENT_BYTES, collapse=collapse) for _ in range(0, size, SEGMENT_BYTES)]
    try:
        for segment in segments:
            segment.touch()
            segment.view[:] = os.urandom(1 << 20) * (SEGMENT_BYTES >> 20)
        yield segments
    finally:
        for segment in segments:
            segment.close()


async def load(copier: Copier, mapping: Mapping, target: Tensor) -> float:
    """Seconds from the first piece to the last byte, page-locking and its end included."""
    manifest = _manifest(mapping.bytes)
    began_s = time.perf_counter()
    async with copying(Copies(copier, manifest, [target])) as put:
        async for piece in _pieces(manifest, mapping):
            await put(piece)
    return time.perf_counter() - began_s


async def _pieces(manifest: Manifest, mapping: Mapping) -> AsyncGenerator[Piece, None]:
    for index, unit in enumerate(manifest.units):
        data = mapping.view[unit.offset : unit.offset + unit.bytes]
        yield Piece(index, 0, data, mapping, unit.offset, nothing)


def _manifest(size: int) -> Manifest:
    offsets = range(0, size, UNIT_BYTES)
    units = [Unit(str(at), UnitKind.EMBEDDING, 0, at, min(UNIT_BYTES, size - at), "0" * 64) for at in offsets]
    part = Part("part-000.bin", 0, size)
    return Manifest("0" * 64, "", "", "", "", "", "uint8", 1, (part,), tuple(units), (), (), (), None)


async def compare(copier: Copier, size: int, rounds: int, collapse: int) -> dict[str, Series]:
    """GB/s of each way, in turns."""
    target = copier.allocate(size).fill_(1)  # touched: what is timed is copying alone
    keeping = Keeping(copier)
    ways: dict[str, Copier] = {"page-locked": copier, "left locked": keeping, "staged": Unpinnable(copier)}
    rates: dict[str, list[float]] = {"limit": [], **{name: [] for name in ways}}
    with pool(size, collapse) as segments:
        say(f"  {sum(one.huge_bytes() for one in segments) / size:.0%} of it in pages of 2 MiB")
        for _ in range(rounds):
            rates["limit"].append(size / limit(copier, target) / 1e9)
            for name, device in ways.items():
                with shared(segments) as mapping:
                    rates[name].append(size / await load(device, mapping, target) / 1e9)
                    assert target[-COPY_BYTES:].cpu().numpy().tobytes() == bytes(mapping.view[-COPY_BYTES:])
                    keeping.end()
    return {name: Series.of(values) for name, values in rates.items()}


DEVICES: dict[str, Callable[[], Copier]] = {"host": HostCopier, "cuda": open_cuda}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = args.parser("device", __doc__ or "")
    parser.add_argument("--device", choices=DEVICES, default="cuda" if torch.cuda.is_available() else "host")
    return parser.parse_args()


def main() -> None:
    """Prints the table."""
    options = parse()
    size, rounds = (1 << 29, 3) if options.quick else (2 << 30, 7)
    say_machine(Machine.here())
    say(f"{options.device}: {size / 1e9:.1f} GB of shared memory in segments of {SEGMENT_BYTES >> 20} MiB, GB/s")
    try:
        copier = DEVICES[options.device]()
    except Unsuitable as error:
        sys.exit(error.message)
    figures: dict[str, float] = {}
    for pages, collapse in PAGES.items():
        say(f"\nsegments with {pages} pages")
        series = asyncio.run(compare(copier, size, rounds, collapse))
        for name, one in series.items():
            over = one.over(series["limit"])
            row(name, one, "GB/s", f"of the limit: {over.text('')}")
            figures |= {f"{name}_{pages}_gb_per_s": one.median, f"{name}_{pages}_vs_limit": over.median}
    if options.json:
        print(
            json.dumps(
                {"device": options.device}
                | {name.replace("-", "_").replace(" ", "_"): one for name, one in figures.items()}
            )
        )


if __name__ == "__main__":
    main()
