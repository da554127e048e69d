"""The ablation's race: each step beside the others, on the same bytes."""

import json
from dataclasses import dataclass

from benchmarks.child import child
from benchmarks.formats import shards
from benchmarks.loading.ablation import LABELS
from benchmarks.loading.contest import Entrant, Race, Results
from benchmarks.loading.stage import Stage


@dataclass(frozen=True, slots=True)
class StepFigures:
    """Every step, in the order in which they build on each other."""

    results: Results


async def measure_steps(stage: Stage) -> StepFigures:
    """Cold, each round all of them."""
    (main,) = await stage.have(stage.sizes.main)
    (part,) = main.part_files
    units = json.dumps(main.units)
    stage.say("ablation")
    async with child("benchmarks.loading.ablation", [str(main.source), str(part), units]) as process:
        await process.answer()
        on_disk = [part, *shards(main.source)]
        entrants = [Entrant(key, label, process, key, files=on_disk, proves=False) for key, label in LABELS.items()]
        race = Race(entrants, stage.sizes.rounds, cold=True)
        return StepFigures(await race.run(stage.say))
