"""What each idea brings, one added to the last: python -m benchmarks.loading.ablation DIRECTORY PART UNITS

Each step ends with every byte in memory and hashed unit by unit. It obeys "load STEP" like a contestant. UNITS is a
JSON list of [offset, bytes] in the part.
"""

import json
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from blake3 import blake3

from benchmarks.answers import answers_only
from benchmarks.formats import shards
from benchmarks.loading.reading import Way, fresh, pool, read_file

BULK_BYTES, CHUNK_BYTES, THREADS = 4 << 20, 1 << 20, 8
Unit = tuple[int, int]  # offset and bytes, as they come on the command line


class Steps:
    """The same bytes, read in one way after another. Each method is one step, says in which way it differs from the one
    before, and returns the hash of each unit."""

    def __init__(self, directory: Path, part: Path, units: Sequence[Unit]) -> None:
        self._shards, self._part, self._units = shards(directory), part, units
        self._bytes = part.stat().st_size
        self._pool = pool(self._bytes)
        self._tensors: list[bytes] = []

    def by_tensor(self) -> list[bytes]:
        """Each tensor read through the page cache into memory of its own. The hashes are the tensors'."""
        for path in self._shards:
            with path.open("rb") as file:
                (header_bytes,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(header_bytes))
                header.pop("__metadata__", None)
                for tensor in header.values():
                    start, end = tensor["data_offsets"]
                    file.seek(8 + header_bytes + start)
                    self._tensors.append(file.read(end - start))
        hashes = [blake3(data).digest() for data in self._tensors]
        self._tensors.clear()
        return hashes

    def bulk(self) -> list[bytes]:
        """One file of raw bytes, read in large pieces into one piece of memory."""
        return self._read_fresh(Way(1, BULK_BYTES, direct=False))

    def direct(self) -> list[bytes]:
        """Past the page cache."""
        return self._read_fresh(Way(1, BULK_BYTES))

    def threads(self) -> list[bytes]:
        """By several threads."""
        return self._read_fresh(Way(THREADS, CHUNK_BYTES))

    def reused(self) -> list[bytes]:
        """Into memory that is there already, in 2 MiB pages."""
        view = memoryview(self._pool)
        read_file(self._part, view, Way(THREADS, CHUNK_BYTES))
        return self._hash(view)

    def pipeline(self) -> list[bytes]:
        """Each unit hashed as soon as it is there, while the next ones are read."""
        view, front, hashes = memoryview(self._pool), _Front(), list[bytes]()
        hashing = threading.Thread(target=self._hash_behind, args=(view, front, hashes))
        hashing.start()
        read_file(self._part, view, Way(THREADS, CHUNK_BYTES), front.add)
        hashing.join()
        return hashes

    def _read_fresh(self, way: Way) -> list[bytes]:
        view = memoryview(fresh(self._bytes))
        read_file(self._part, view, way)
        return self._hash(view)

    def _hash(self, view: memoryview) -> list[bytes]:
        return [blake3(view[offset : offset + size]).digest() for offset, size in self._units]

    def _hash_behind(self, view: memoryview, front: "_Front", hashes: list[bytes]) -> None:
        for offset, size in self._units:
            front.reaches(offset + size)
            hashes.append(blake3(view[offset : offset + size]).digest())


class _Front:
    """How far a file has been read without a gap, told by threads and waited for by one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ahead: dict[int, int] = {}  # chunks beyond a gap: start and end
        self._end = 0

    def add(self, chunk: range) -> None:
        """It is there."""
        with self._changed:
            self._ahead[chunk.start] = chunk.stop
            while self._end in self._ahead:
                self._end = self._ahead.pop(self._end)
            self._changed.notify_all()

    def reaches(self, end: int) -> None:
        """Returns when everything before `end` is there."""
        with self._changed:
            self._changed.wait_for(lambda: self._end >= end)


LABELS: Mapping[str, str] = MappingProxyType(
    {
        "by_tensor": "tensor by tensor",
        "bulk": "+ bulk",
        "direct": "+ O_DIRECT",
        "threads": "+ threads",
        "reused": "+ reused 2 MiB pages",
        "pipeline": "+ pipeline",
    }
)


def main(directory: str, part: str, units: str) -> None:
    """Until standard input ends."""
    answers, steps = answers_only(), Steps(Path(directory), Path(part), [tuple(unit) for unit in json.loads(units)])
    size = Path(part).stat().st_size
    answers.write("ready\n")
    for line in sys.stdin:
        command, _, name = line.strip().partition(" ")
        if command != "load":
            answers.write("done\n")
            continue
        step: Callable[[], list[bytes]] = getattr(steps, name)
        began_s = time.perf_counter()
        step()
        answers.write(json.dumps({"load_s": time.perf_counter() - began_s, "bytes": size, "tier": "disk"}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:4])
