"""Bytes already in this node's memory: ours in the store's DRAM, theirs in the page cache. Time until a replica."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.child import Child
from benchmarks.formats import files
from benchmarks.loading.contest import Entrant, Race, Results, converted, exact, ready, warmed_up
from benchmarks.loading.importing import Imported
from benchmarks.loading.peers import FROM_PRETRAINED, SAFETENSORS, WARM, Peer
from benchmarks.loading.stage import MAIN, TINY, Stage, pool_bytes, warm_entrant, workers
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


async def measure_warm(stage: Stage, *, scale: bool) -> WarmFigures:
    """Races the main size, and with `scale` the others."""
    main_size, others = stage.sizes.main, stage.sizes.scale if scale else ()
    main, tiny, *more = await stage.have(main_size, TINY, *others)
    stage.say("warm: starting the contestants")
    async with (
        stage.store(MAIN, pool_bytes(main, tiny, *more), VERIFY="import") as store,
        workers([store]) as (worker,),
        ready(WARM, stage.venvs) as processes,
    ):
        await converted([*processes.values()], [main.source, tiny.source])
        await warmed_up([*processes.values()], tiny.source)
        everybody = await _size(stage, main_size, main, worker, processes, WARM)
        few = [
            await _size(stage, size, one, worker, processes, (SAFETENSORS, FROM_PRETRAINED))
            for size, one in zip(others, more, strict=True)
        ]
    return WarmFigures(everybody, tuple(few), tuple(peer.label for peer in WARM if peer.key not in processes))


async def _size(  # noqa: PLR0917  private, and called twice
    stage: Stage, size: Llama, model: Imported, worker: Child, processes: Mapping[str, Child], peers: Sequence[Peer]
) -> WarmSize:
    stage.say(f"warm, {size.parameters_b:g} billion weights")
    touches = [await _touched(worker, model.digest) for _ in range(1 + stage.sizes.rounds)]
    entrants = [
        warm_entrant(OURS, "Whimbrel", worker, model.digest),
        *(
            Entrant(peer.key, peer.label, processes[peer.key], str(model.source))
            for peer in peers
            if peer.key in processes
        ),
    ]
    results = await Race(entrants, files(model.source), stage.sizes.rounds, cold=False, same=exact).run(stage.say)
    return WarmSize(size.parameters_b, results, Series.of(touches[1:]))


async def _touched(worker: Child, digest: str) -> float:
    """The first brings the checkpoint to DRAM, and has the skeleton built that a worker keeps."""
    await worker.ask(f"load {digest}")
    touch_s = float(await worker.ask("touch"))
    await worker.ask("free")
    return touch_s
