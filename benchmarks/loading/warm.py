"""Bytes already in this node's memory: ours in the store's DRAM, theirs in the page cache. Time until a replica."""

from dataclasses import dataclass

from benchmarks.child import Child
from benchmarks.loading.cast import Cast
from benchmarks.loading.contest import Race, Results
from benchmarks.loading.importing import Imported
from benchmarks.loading.stage import MAIN, TINY, Stage, pool_bytes
from benchmarks.loading.store import Store
from benchmarks.models import Llama
from benchmarks.series import Series

OURS = "ours"


@dataclass(frozen=True, slots=True)
class WarmSize:
    """One size of model, raced. `touch_s`: what a first pass over every page of ours then costs."""

    parameters_b: float
    results: Results
    touch_s: Series

    @property
    def ready_s(self) -> Series:
        """From the order to a replica."""
        ours = self.results.of(OURS)
        assert ours is not None
        return ours.seconds


@dataclass(frozen=True, slots=True)
class WarmFigures:
    """The main size with everybody, and others with the two that everybody has."""

    main: WarmSize
    scale: tuple[WarmSize, ...]
    missing: tuple[str, ...]

    @property
    def sizes(self) -> list[WarmSize]:
        """All, the smallest first."""
        return sorted((self.main, *self.scale), key=lambda size: size.parameters_b)


async def measure_warm(stage: Stage, loaders: Cast, *, scale: bool) -> WarmFigures:
    """Races the main size with everybody, and with `scale` the others with those of our own environment."""
    sizes = (stage.sizes.main, *(stage.sizes.scale if scale else ()))
    models = await stage.have(*sizes)
    (tiny,) = await stage.sources(TINY)
    await loaders.converted(models[0].source, tiny)
    await loaders.warmed_up(tiny)
    main, *others = [await _size(stage, loaders, size, model) for size, model in zip(sizes, models, strict=True)]
    return WarmFigures(main, tuple(others), loaders.missing)


async def _size(stage: Stage, loaders: Cast, size: Llama, model: Imported) -> WarmSize:
    stage.say(f"warm, {size.parameters_b:g} billion weights")
    async with stage.store(MAIN, pool_bytes(model), VERIFY="import") as store:
        return await _raced(stage, loaders, store, size, model)


async def _raced(stage: Stage, loaders: Cast, store: Store, size: Llama, model: Imported) -> WarmSize:
    order = f"{store.address} {model.digest}"
    touches = [await _touched(loaders.worker, order) for _ in range(1 + stage.sizes.rounds)]
    ours = loaders.ours(OURS, "Whimbrel", store, model.digest, cold=False)
    entrants = [ours, *loaders.entrants(model.source, cold=False, everybody=size == stage.sizes.main)]
    race = Race(entrants, stage.sizes.rounds, cold=False)
    return WarmSize(size.parameters_b, await race.run(stage.say), Series.of(touches[1:]))


async def _touched(worker: Child, order: str) -> float:
    """The first brings the checkpoint to DRAM, and has the skeleton built that a worker keeps."""
    await worker.ask(f"load {order}")
    touch_s = float(await worker.ask("touch"))
    await worker.ask("free")
    return touch_s
