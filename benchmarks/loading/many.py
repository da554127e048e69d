"""Many small tensors: a mixture of experts, cold and warm, beside what everybody has."""

from dataclasses import dataclass

from benchmarks.loading.cast import Cast
from benchmarks.loading.contest import Race, Results
from benchmarks.loading.stage import MAIN, Stage, pool_bytes
from benchmarks.models import Moe

OURS = "ours"


@dataclass(frozen=True, slots=True)
class ManyFigures:
    """The same model from disk and from memory."""

    model: Moe
    cold: Results
    warm: Results


async def measure_many(stage: Stage, loaders: Cast) -> ManyFigures:
    """Transformers and we fuse the experts, load_file does not: so the bytes are compared, not the names."""
    (moe,) = await stage.have(stage.sizes.moe)
    await loaders.warmed_up(moe.source, everybody=False)
    async with stage.store(MAIN, pool_bytes(moe), VERIFY="import") as store:
        await loaders.worker.ask(f"load {store.address} {moe.digest}")
        await loaders.worker.ask("free")
        raced = []
        for cold in (True, False):
            stage.say(f"many small tensors, {'cold' if cold else 'warm'}")
            ours = loaders.ours(OURS, "Whimbrel", store, moe.digest, cold=cold)
            entrants = [ours, *loaders.entrants(moe.source, cold=cold, everybody=False)]
            race = Race(entrants, stage.sizes.rounds, cold=cold, check="contents")
            raced.append(await race.run(stage.say))
    return ManyFigures(stage.sizes.moe, *raced)
