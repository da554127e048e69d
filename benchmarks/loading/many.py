"""Many small tensors: a mixture of experts, cold and warm, beside what everybody has."""

from dataclasses import dataclass

from benchmarks.loading.contest import Entrant, Race, Results, fused_or_not, ready, warmed_up
from benchmarks.loading.peers import FROM_PRETRAINED, SAFETENSORS
from benchmarks.loading.stage import MAIN, TINY, Stage, cold_entrant, pool_bytes, warm_entrant, workers
from benchmarks.models import Moe

OURS = "ours"
PEERS = (SAFETENSORS, FROM_PRETRAINED)


@dataclass(frozen=True, slots=True)
class ManyFigures:
    """The same model from disk and from memory."""

    model: Moe
    cold: Results
    warm: Results


async def measure_many(stage: Stage) -> ManyFigures:
    """Transformers and we fuse the experts, load_file does not: so the bytes are compared, not the names."""
    moe, tiny = await stage.have(stage.sizes.moe, TINY)
    stage.say("many small tensors: starting the contestants")
    async with (
        stage.store(MAIN, pool_bytes(moe, tiny), VERIFY="import") as store,
        workers([store]) as (worker,),
        ready(PEERS, stage.venvs) as processes,
    ):
        await warmed_up([*processes.values()], tiny.source)
        await worker.ask(f"load {moe.digest}")
        await worker.ask("free")
        theirs = [Entrant(peer.key, peer.label, processes[peer.key], str(moe.source)) for peer in PEERS]
        files = [*store.part_files(moe.digest), *moe.source.glob("*.safetensors")]
        ours = cold_entrant(OURS, "Whimbrel", worker, store, moe.digest)
        cold = await Race([ours, *theirs], files, stage.sizes.rounds, cold=True, same=fused_or_not).run(stage.say)
        ours = warm_entrant(OURS, "Whimbrel", worker, moe.digest)
        warm = await Race([ours, *theirs], files, stage.sizes.rounds, cold=False, same=fused_or_not).run(stage.say)
    return ManyFigures(stage.sizes.moe, cold, warm)
