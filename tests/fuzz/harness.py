"""What the fuzzers share: a corpus to start from, bounded memory, and libFuzzer by way of atheris."""

import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import atheris

HEADROOM_BYTES = 1 << 30  # beyond what importing takes; whatever asks for more fails, and that is a find


def fuzz(target: Callable[[bytes], None], seeds: Sequence[bytes]) -> None:
    """Runs `target` on ever new bytes until libFuzzer's own options (-runs=N, -max_total_time=S) end it.

    An exception that gets out of `target` is a find: libFuzzer prints it, saves the bytes and exits with status 77.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + HEADROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], target)
        atheris.Fuzz()
