"""From bytes in this node's memory to the first token: what a cold start is made of, and how much is done ahead."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.child import Child, child
from benchmarks.engine.part import PARTS, Part
from benchmarks.engine.stage import Stage, threads
from benchmarks.series import Series

SHAPES = {"100m": 12, "8b": 32, "70b": 80}  # layers, of those in starting.py
DTYPE = "bfloat16"


@dataclass(frozen=True, slots=True)
class PartFigures:
    """One part, a value a round."""

    elapsed_s: Series
    cpu_s: Series


Table = Mapping[str, PartFigures]  # by the part's name, in order


@dataclass(frozen=True, slots=True)
class StartFigures:
    """`fresh`: the module is built in the load; `ready`: it lies ready. `shapes` by name."""

    imports: Table
    fresh: Table
    ready: Table
    shapes: Mapping[str, Table]

    @property
    def ready_s(self) -> Series:
        """From the order to the first token, by a worker that made ready."""
        return _until_first(self.ready)

    @property
    def everything_s(self) -> Series:
        """The same by a process that has just been started."""
        imports = [part.elapsed_s for part in self.imports.values()]
        return _sum([*imports, _until_first(self.fresh)])

    def assign_ms_a_layer(self, shape: str) -> Series:
        """Pointing a module that lies ready at its weights."""
        return Series.of(
            seconds * 1e3 / SHAPES[shape] for seconds in self.shapes[shape]["assign again"].elapsed_s.values
        )


async def measure_start(stage: Stage) -> StartFigures:
    """A new process each round."""
    stage.say("cold starts")
    model = stage.models[DTYPE]
    async for _ in model.store.client.prefetch(model.store.address, model.digest):
        pass
    load = f"load {model.store.address} {model.digest}"
    rounds = [await _round(stage, load) for _ in range(stage.sizes.rounds)]
    imports, fresh, ready, *shapes = (_table(parts) for parts in zip(*rounds, strict=True))
    return StartFigures(imports, fresh, ready, dict(zip(SHAPES, shapes, strict=True)))


async def _round(stage: Stage, load: str) -> list[tuple[Part, ...]]:
    async with child("benchmarks.engine.starting", settings=threads(stage.threads)) as process:
        imports = PARTS.validate_json(await process.answer())
        loads = [await _told(process, load), await _told(process, load)]
        return [imports, *loads, *[await _told(process, f"shape {name}") for name in SHAPES]]


async def _told(process: Child, line: str) -> tuple[Part, ...]:
    return PARTS.validate_json(await process.ask(line))


def _table(rounds: tuple[tuple[Part, ...], ...]) -> Table:
    return {
        parts[0].name: PartFigures(Series.of(p.elapsed_s for p in parts), Series.of(p.cpu_s for p in parts))
        for parts in zip(*rounds, strict=True)
    }


def _until_first(table: Table) -> Series:
    return _sum([table["order to replica"].elapsed_s, table["first token"].elapsed_s])


def _sum(parts: list[Series]) -> Series:
    return Series.of(sum(values) for values in zip(*(part.values for part in parts), strict=True))
