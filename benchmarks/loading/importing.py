"""What an import costs: its rate, and the memory that it needs at most beyond what it has loaded of Python."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.formats import shards
from benchmarks.loading.store import Store
from benchmarks.memory import Peak, descendants
from mesh.checkpoint.layout import total_bytes

RING_BYTES = 64 << 20  # what an import may hold beside two units


@dataclass(frozen=True, slots=True)
class Imported:
    """A checkpoint in the main store. `bytes` is what it takes in a pool."""

    digest: str
    bytes: int
    source: Path
    source_bytes: int
    took_s: float
    peak_bytes: int  # private memory of the store and its import process, beyond what the store had before
    units: tuple[tuple[int, int], ...]  # offset in its part and bytes, in order
    part_files: tuple[Path, ...]

    @property
    def largest_unit_bytes(self) -> int:
        """Of its units."""
        return max(size for _, size in self.units)

    @property
    def gb_per_s(self) -> float:
        """Of the source's bytes."""
        return self.source_bytes / self.took_s / 1e9

    def over_bound(self, least: "Imported") -> float:
        """Memory that the weights took, over two units and the ring; `least` is what a tiny import takes."""
        return (self.peak_bytes - least.peak_bytes) / (2 * self.largest_unit_bytes + RING_BYTES)


async def imported(store: Store, source: Path) -> Imported:
    """Imports it, its memory watched."""
    async with Peak(lambda: [store.pid, *descendants(store.pid)]).watching() as peak:
        began_s = time.perf_counter()
        summary = await store.take(source)
        took_s = time.perf_counter() - began_s
    manifest = (await store.client.stat(store.address, summary.digest)).manifest
    files = await asyncio.to_thread(store.part_files, summary.digest)
    return Imported(
        digest=summary.digest,
        bytes=total_bytes(manifest),
        source=source,
        source_bytes=sum(path.stat().st_size for path in shards(source)),
        took_s=took_s,
        peak_bytes=peak.grown_private_bytes,
        units=tuple((unit.offset, unit.bytes) for unit in manifest.units),
        part_files=tuple(files),
    )
