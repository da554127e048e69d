"""One, two and four loads at once from one disk: what they get together, and how evenly."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cache import drop
from benchmarks.child import Child
from benchmarks.loading.cast import workers
from benchmarks.loading.contest import LOADED, Loaded
from benchmarks.loading.importing import Imported
from benchmarks.loading.stage import MAIN, Stage, pool_bytes
from benchmarks.loading.store import Store
from benchmarks.series import Series

COUNTS = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Crowd:
    """That many checkpoints of equal size at once. `fairness`: the quickest load's seconds over the slowest's."""

    count: int
    gb_per_s: Series
    fairness: Series


@dataclass(frozen=True, slots=True)
class CrowdFigures:
    """By how many there were."""

    crowds: tuple[Crowd, ...]

    def versus_one(self, count: int) -> Series:
        """What they got together over what one gets alone, round by round."""
        one, many = (next(c for c in self.crowds if c.count == n) for n in (1, count))
        return many.gb_per_s.over(one.gb_per_s)


async def measure_crowd(stage: Stage) -> CrowdFigures:
    """Each load is its own worker's; all are ordered in the same moment."""
    models = await stage.have(*stage.sizes.crowd)
    stage.say("two and four loads at once")
    rounds: dict[int, list[tuple[float, float]]] = {count: [] for count in COUNTS}
    async with (
        stage.store(MAIN, pool_bytes(*models), VERIFY="import") as store,
        workers(max(COUNTS)) as processes,
    ):
        await _at_once(store, processes, models)  # the pool's memory and the skeletons are there from now on
        for number in range(stage.sizes.rounds):
            stage.say(f"  round {number + 1} of {stage.sizes.rounds}")
            for count in COUNTS:
                rounds[count].append(await _at_once(store, processes[:count], models[:count]))
    return CrowdFigures(tuple(_crowd(count, took) for count, took in rounds.items()))


async def _at_once(store: Store, processes: Sequence[Child], models: Sequence[Imported]) -> tuple[float, float]:
    """GB/s of all together, and how even they were."""
    for model in models:
        await store.evict(model.digest)
        await asyncio.to_thread(drop, store.part_files(model.digest))
    orders = (
        process.ask(f"load {store.address} {model.digest}") for process, model in zip(processes, models, strict=True)
    )
    loads: list[Loaded] = [LOADED.validate_json(answer) for answer in await asyncio.gather(*orders)]
    for process in processes:
        await process.ask("free")
    seconds = [load.load_s for load in loads]
    return sum(load.bytes for load in loads) / max(seconds) / 1e9, min(seconds) / max(seconds)


def _crowd(count: int, took: Sequence[tuple[float, float]]) -> Crowd:
    return Crowd(count, Series.of(rate for rate, _ in took), Series.of(even for _, even in took))
