"""From disk, nothing in any memory: the raw limit, ours with both ways of verifying, and everybody else."""

from dataclasses import dataclass

from benchmarks.child import child
from benchmarks.formats import files
from benchmarks.loading.contest import Entrant, Race, Results, converted, exact, ready, threads, warmed_up
from benchmarks.loading.peers import COLD
from benchmarks.loading.stage import MAIN, TINY, Stage, cold_entrant, pool_bytes, workers
from benchmarks.series import Series

RAW = {"raw_16x512k": (16, 512 << 10), "raw_8x1m": (8, 1 << 20), "raw_4x4m": (4, 4 << 20)}
OURS, VERIFIED = "ours", "ours_verified"


@dataclass(frozen=True, slots=True)
class ColdFigures:
    """`missing`: labels of peers that are not installed."""

    results: Results
    missing: tuple[str, ...]

    @property
    def limit_key(self) -> str:
        """The raw setting that was quickest today."""
        return self.results.quickest(list(RAW)).key

    def vs_limit(self, key: str = OURS) -> Series:
        """The limit's seconds over ours: 1 is the limit."""
        ratio = self.results.ratio(self.limit_key, key)
        assert ratio is not None
        return ratio


async def measure_cold(stage: Stage) -> ColdFigures:
    """Races all of them on the main model."""
    main, tiny = await stage.have(stage.sizes.main, TINY)
    await stage.twin("verified")
    dram_bytes = pool_bytes(main, tiny)
    stage.say("cold: starting the contestants")
    async with (
        stage.store(MAIN, dram_bytes, VERIFY="import") as trusting,
        stage.store("verified", dram_bytes, VERIFY="always") as verifying,
        workers([trusting, verifying]) as (worker, careful),
        child("benchmarks.loading.raw", settings=threads()) as raw,
        ready(COLD, stage.venvs) as processes,
    ):
        await raw.answer()
        await converted([*processes.values()], [main.source, tiny.source])
        await stage.settled()
        await warmed_up([*processes.values()], tiny.source)
        for process in (worker, careful):
            await process.ask(f"load {main.digest}")  # the pool's memory is there from now on
            await process.ask("free")
        parts = trusting.part_files(main.digest)
        entrants = [
            *(
                Entrant(key, f"raw, {text}", raw, f"{way[0]} {way[1]} {parts[0].parent}", proves=False)
                for (key, way), text in zip(RAW.items(), ("16 x 512 KiB", "8 x 1 MiB", "4 x 4 MiB"), strict=True)
            ),
            cold_entrant(OURS, "Whimbrel, verify=import", worker, trusting, main.digest),
            cold_entrant(VERIFIED, "Whimbrel, verify=always", careful, verifying, main.digest),
            *(
                Entrant(peer.key, peer.label, processes[peer.key], str(main.source))
                for peer in COLD
                if peer.key in processes
            ),
        ]
        race = Race(entrants, [*parts, *files(main.source)], stage.sizes.rounds, cold=True, same=exact)
        results = await race.run(stage.say)
    return ColdFigures(results, tuple(peer.label for peer in COLD if peer.key not in processes))
