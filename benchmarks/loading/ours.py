"""Our side of the race, where a worker stands: python -m benchmarks.loading.ours

The worker's own loader in a process of its own, on a store that runs elsewhere. It obeys the lines of contestant.py,
with a store and a checkpoint for the directory, and one more:
  load STORE_ADDRESS DIGEST  a replica with its weights assigned, as a worker makes it for its engine
  touch           reads a byte of each page, as a first forward pass does; answers the seconds
"""

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from typing import IO

from torch import Tensor

from benchmarks.answers import answers_only
from benchmarks.loading.checksum import checksum, contents, size_bytes
from benchmarks.loading.loaders import touched
from benchmarks.worker import Unobserved, loader
from mesh.memory import tune_malloc
from services.worker.engine.packed_replica import PackedReplica
from services.worker.loading.loader import LoadedReplica, Loader, Order
from services.worker.loading.skeletons import preimport
from services.worker.settings import WorkerSettings


class Worker:
    """Loads one checkpoint at a time."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._held = AsyncExitStack()
        self._loaded: LoadedReplica | None = None

    async def obey(self, command: str, rest: str) -> str:
        """The answer."""
        match command:
            case "load":
                return await self._load(*rest.split(" "))
            case "check":
                return checksum(self._tensors())
            case "contents":
                return contents(self._tensors())
            case "touch":
                began_s = time.perf_counter()
                touched(self._tensors())
                return str(time.perf_counter() - began_s)
            case "free":
                await self._free()
        return "done"

    async def _load(self, store_address: str, digest: str) -> str:
        began_s = time.perf_counter()
        order = Order("benchmark", digest, store_address)
        self._loaded = await self._held.enter_async_context(self._loader.load(order, Unobserved()))
        load_s = time.perf_counter() - began_s
        return json.dumps({"load_s": load_s, "bytes": size_bytes(self._tensors()), "tier": self._loaded.tier.value})

    def _tensors(self) -> dict[str, Tensor]:
        assert self._loaded is not None
        replica = self._loaded.replica
        assert isinstance(replica, PackedReplica)
        return dict(replica._runner.module.state_dict())  # the engine alone needs to reach it otherwise

    async def _free(self) -> None:
        """As a worker does: the replica lets go of the weights, then the store of the checkpoint."""
        if self._loaded:
            self._loaded.replica.unload()
        self._loaded = None
        await self._held.aclose()


async def main(answers: IO[str]) -> None:
    """Until standard input ends."""
    preimport(("llama", "qwen3_moe"))
    async with loader(WorkerSettings.load()) as loading:
        worker = Worker(loading)
        answers.write("ready\n")
        while line := await asyncio.to_thread(sys.stdin.readline):
            command, _, rest = line.rstrip("\n").partition(" ")
            answers.write(await worker.obey(command, rest) + "\n")


if __name__ == "__main__":
    tune_malloc()  # as a worker does
    asyncio.run(main(answers_only()))
