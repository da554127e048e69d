"""What a load takes of the machine's memory at its highest: store and worker together, shared pages counted once."""

import asyncio
from dataclasses import dataclass

from benchmarks.cache import drop
from benchmarks.loading.stage import MAIN, TINY, Stage, pool_bytes, workers
from benchmarks.memory import Memory, Peak


@dataclass(frozen=True, slots=True)
class ResidenceFigures:
    """`idle`: both processes once they have loaded something tiny; its shared part, the pool, is the model's."""

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
    main, tiny = await stage.have(stage.sizes.main, TINY)
    stage.say("memory of a load")
    async with (
        stage.store(MAIN, pool_bytes(main), VERIFY="always") as store,
        workers([store]) as (worker,),
    ):
        await worker.ask(f"load {tiny.digest}")
        await worker.ask("free")
        await store.evict(tiny.digest)
        await asyncio.to_thread(drop, store.part_files(main.digest))
        async with Peak(lambda: [store.pid, worker.pid]).watching() as peak:
            await worker.ask(f"load {main.digest}")
            await worker.ask("touch")
        await worker.ask("free")
    return ResidenceFigures(main.bytes, peak.before, peak.highest)
