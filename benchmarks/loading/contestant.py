"""One loader in a process of its own: python -m benchmarks.loading.contestant LOADER

It imports, says "ready", and obeys a line at a time:
  load cold|warm DIRECTORY  loads it; answers a Loaded as JSON, and keeps the tensors
  check           answers the checksum
  contents        answers the checksum of the contents, in whatever tensors
  free            lets go of the tensors
  convert DIRECTORY  writes the file that the loader reads, if it is not safetensors
"""

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from benchmarks.answers import answers_only
from benchmarks.formats import write_tensorizer, write_torch
from benchmarks.loading.checksum import checksum, contents, size_bytes
from benchmarks.loading.loaders import LOADERS, Load

CONVERT: dict[str, Callable[[Path], None]] = {
    "torch_load": write_torch,
    "tensorizer": write_tensorizer,
}


class Contestant:
    """A loader, and what it has loaded."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._load: Load = LOADERS[name]()
        self._tensors: dict[str, Tensor] = {}

    def obey(self, command: str, rest: str) -> str:
        """The answer."""
        match command:
            case "load":
                mode, _, directory = rest.partition(" ")
                began_s = time.perf_counter()
                self._tensors = self._load(Path(directory), mode == "warm")
                load_s = time.perf_counter() - began_s
                return json.dumps({"load_s": load_s, "bytes": size_bytes(self._tensors), "tier": ""})
            case "check":
                return checksum(self._tensors)
            case "contents":
                return contents(self._tensors)
            case "free":
                self._tensors = {}
                gc.collect()
            case "convert":
                if convert := CONVERT.get(self._name):
                    convert(Path(rest))
        return "done"


def main(name: str) -> None:
    """Until standard input ends."""
    answers = answers_only()
    contestant = Contestant(name)
    answers.write("ready\n")
    for line in sys.stdin:
        command, _, rest = line.rstrip("\n").partition(" ")
        answers.write(contestant.obey(command, rest) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
