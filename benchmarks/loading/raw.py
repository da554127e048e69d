"""The limit: O_DIRECT into a large pool of touched 2 MiB pages, and nothing else. python -m benchmarks.loading.raw

It obeys the lines of contestant.py; a load is "load THREADS CHUNK_BYTES DIRECTORY" and reads the part files there.
"""

import json
import mmap
import sys
import time
from pathlib import Path

from benchmarks.answers import answers_only
from benchmarks.loading.reading import Way, pool, read_file


class Raw:
    """Keeps its pool from load to load."""

    def __init__(self) -> None:
        self._pools: list[mmap.mmap] = []

    def obey(self, command: str, rest: str) -> str:
        """The answer."""
        if command != "load":
            return "done"
        threads, chunk_bytes, directory = rest.split(" ", 2)
        return self._load(Way(int(threads), int(chunk_bytes)), sorted(Path(directory).glob("part-*.bin")))

    def _load(self, way: Way, paths: list[Path]) -> str:
        sizes = [path.stat().st_size for path in paths]
        if [len(memory) for memory in self._pools] != sizes:
            self._pools = [pool(size) for size in sizes]
        began_s = time.perf_counter()
        for path, memory in zip(paths, self._pools, strict=True):
            read_file(path, memoryview(memory), way)
        return json.dumps({"load_s": time.perf_counter() - began_s, "bytes": sum(sizes), "tier": "disk"})


def main() -> None:
    """Until standard input ends."""
    answers, raw = answers_only(), Raw()
    answers.write("ready\n")
    for line in sys.stdin:
        command, _, rest = line.rstrip("\n").partition(" ")
        answers.write(raw.obey(command, rest) + "\n")


if __name__ == "__main__":
    main()
