"""A prompt whose beginning has been answered before: its time to first token beside that of one that is all new."""

from dataclasses import dataclass, replace

from benchmarks.engine.batch import Batch
from benchmarks.engine.race import Entrant, asked
from benchmarks.engine.stage import Stage, batches
from benchmarks.series import Series

DTYPE = "bfloat16"
NEW_TOKENS = 8  # at the end of a prompt that is known but for them


@dataclass(frozen=True, slots=True)
class PrefixFigures:
    """Seconds to the first token, a value a round."""

    prompt_tokens: int
    miss_s: Series
    hit_s: Series

    @property
    def speedup(self) -> Series:
        """How many times as long a miss takes."""
        return self.miss_s.over(self.hit_s)


async def measure_prefix(stage: Stage) -> PrefixFigures:
    """Each round a new prompt, and then the same with another end."""
    stage.say("prefix hits")
    tokens = stage.sizes.long_tokens
    drawn, ends = batches(1, tokens, 1), batches(1, NEW_TOKENS, 1)
    misses: list[float] = []
    hits: list[float] = []
    async with stage.ours(stage.models[DTYPE]) as process:
        await process.answer()
        ours = Entrant("ours", "Whimbrel", process)
        for _ in range(1 + stage.sizes.rounds):
            new = next(drawn)
            misses.append((await asked(ours, new)).ttft_s)
            hits.append((await asked(ours, _ended(new, next(ends)))).ttft_s)
    return PrefixFigures(tokens, Series.of(misses[1:]), Series.of(hits[1:]))


def _ended(batch: Batch, end: Batch) -> Batch:
    """The same prompt up to an end that differs."""
    return replace(batch, prompts=(batch.prompts[0][:-NEW_TOKENS] + end.prompts[0],))
