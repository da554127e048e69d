"""python -m benchmarks.device: segments of shared memory into a device's, against the same copies from pinned memory.

No store and no model: what is timed is what CopyDevice does with pieces that are all there. On the host it times
copies within memory.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import torch
from torch import Tensor

from benchmarks import args
from benchmarks.machine import Machine
from benchmarks.report import row, say, say_machine
from benchmarks.series import Series
from mesh.checkpoint.layout import Manifest, Part, Unit, UnitKind
from mesh.errors import Unsuitable
from mesh.mapping import Mapping
from services.worker.loading.copying import COPY_BYTES, FLYING, Copier, Copies, copying
from services.worker.loading.cuda import open_cuda
from services.worker.loading.host import HostCopier
from services.worker.loading.piece import Piece, nothing

SEGMENT_BYTES = 64 << 20
UNIT_BYTES = 128 << 20


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


@asynccontextmanager
async def shared(size: int) -> AsyncIterator[Mapping]:
    """Touched segments, mapped as a worker maps them; a new mapping each time, as each load has."""
    descriptors: list[int] = []
    mapping = Mapping(size, writable=False)
    try:
        for offset in range(0, size, SEGMENT_BYTES):
            descriptors.append(os.memfd_create("whimbrel-bench", os.MFD_CLOEXEC))
            os.write(descriptors[-1], os.urandom(1 << 20) * (SEGMENT_BYTES >> 20))
            mapping.place(descriptors[-1], offset, SEGMENT_BYTES)
        yield mapping
    finally:
        mapping.release()
        for descriptor in descriptors:
            os.close(descriptor)


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


async def compare(copier: Copier, size: int, rounds: int) -> dict[str, Series]:
    """GB/s of each way, in turns."""
    target = copier.allocate(size).fill_(1)  # touched: what is timed is copying alone
    rates: dict[str, list[float]] = {"limit": [], "page-locked": [], "staged": []}
    for _ in range(rounds):
        async with shared(size) as mapping:
            rates["limit"].append(size / limit(copier, target) / 1e9)
            for name, device in (("page-locked", copier), ("staged", Unpinnable(copier))):
                rates[name].append(size / await load(device, mapping, target) / 1e9)
                assert target[-COPY_BYTES:].cpu().numpy().tobytes() == bytes(mapping.view[-COPY_BYTES:])
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
    series = asyncio.run(compare(copier, size, rounds))
    for name, one in series.items():
        row(name, one, "GB/s", f"of the limit: {one.over(series['limit']).text('')}")
    if options.json:
        figures = {f"{name.replace('-', '_')}_gb_per_s": one.median for name, one in series.items()}
        over = series["page-locked"].over(series["limit"]).median
        print(json.dumps({"device": options.device, "pool_to_device_vs_limit": over} | figures))


if __name__ == "__main__":
    main()
