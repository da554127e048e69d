"""What a load takes of the machine's memory at its highest: store and worker together, shared pages counted once."""

import asyncio
from dataclasses import dataclass

from benchmarks.cache import drop
from benchmarks.loading.cast import workers
from benchmarks.loading.stage import MAIN, Stage, pool_bytes
from benchmarks.memory import Memory, Peak

SMALL_KV = {"WHIMBREL_KV_BYTES": str(1 << 20)}  # the cache is no part of a load


@dataclass(frozen=True, slots=True)
class ResidenceFigures:
    """`idle`: both processes before the load; the pool, its shared part, is the model's."""

    model_bytes: int
    idle: Memory
    highest: Memory

    @property
    def ratio(self) -> float:
        """What the load takes, the pool it goes to included, over the model's bytes."""
        return (self.highest.total - self.idle.private - self.idle.files) / self.model_bytes

    @property
    def all_ratio(self) -> float:
        """Two interpreters with torch, grpc and all included."""
        return self.highest.total / self.model_bytes


async def measure_residence(stage: Stage) -> ResidenceFigures:
    """One cold load into a pool that just holds it."""
    (main,) = await stage.have(stage.sizes.main)
    stage.say("memory of a load")
    async with (
        stage.store(MAIN, pool_bytes(main), VERIFY="always") as store,
        workers(1, SMALL_KV) as (worker,),
    ):
        await asyncio.to_thread(drop, store.part_files(main.digest))
        async with Peak(lambda: [store.pid, worker.pid]).watching() as peak:
            await worker.ask(f"load {store.address} {main.digest}")
            await worker.ask("touch")
        await worker.ask("free")
    return ResidenceFigures(main.bytes, peak.before, peak.highest)
