"""What each numerics level costs: the same prompts at every level, one after the other."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from benchmarks.engine.race import Entrant, Result, race
from benchmarks.engine.stage import Model, Stage, batches
from benchmarks.series import Series
from mesh.facts import NumericsLevel

FAST = NumericsLevel.FAST
INVARIANT = (NumericsLevel.BATCH_INVARIANT, NumericsLevel.PATH_INVARIANT)


@dataclass(frozen=True, slots=True)
class LevelHeat:
    """One precision at one batch size."""

    dtype: str
    prompts: int
    results: Mapping[str, Result]  # by level

    def overhead(self, level: NumericsLevel) -> Series:
        """What the level takes of fast's tokens for a second of processor time: 0 nothing, 0.5 half of them."""
        ratio = self.results[level].tokens_per_cpu_s.over(self.results[FAST].tokens_per_cpu_s)
        return Series.of(1 - value for value in ratio.values)


@dataclass(frozen=True, slots=True)
class LevelFigures:
    """Every precision and batch size."""

    heats: tuple[LevelHeat, ...]


async def measure_levels(stage: Stage) -> LevelFigures:
    """One precision after the other."""
    heats: list[LevelHeat] = []
    for dtype, model in stage.models.items():
        stage.say(f"numerics levels in {dtype}")
        async with _entrants(stage, model) as entrants:
            for prompts in stage.sizes.batches:
                drawn = batches(prompts, stage.sizes.prompt_tokens, stage.sizes.tokens)
                raced = await race(entrants, drawn.__next__, stage.sizes.rounds, proves=False)
                heats.append(LevelHeat(dtype, prompts, raced))
    return LevelFigures(tuple(heats))


@asynccontextmanager
async def _entrants(stage: Stage, model: Model) -> AsyncIterator[list[Entrant]]:
    async with AsyncExitStack() as stack:
        entrants = [
            Entrant(level, level, await stack.enter_async_context(stage.ours(model, NUMERICS=level)))
            for level in (FAST, *INVARIANT)
        ]
        for entrant in entrants:
            await entrant.process.answer()
        yield entrants
