"""From disk, nothing in any memory: the raw limit, ours with both ways of verifying, and everybody else."""

from dataclasses import dataclass

from benchmarks.child import child
from benchmarks.loading.cast import Cast
from benchmarks.loading.contest import Entrant, Race, Results, threads
from benchmarks.loading.reading import Way
from benchmarks.loading.stage import MAIN, TINY, Stage, pool_bytes
from benchmarks.series import Series

RAW = {"raw_16x512k": Way(16, 512 << 10), "raw_8x1m": Way(8, 1 << 20), "raw_4x4m": Way(4, 4 << 20)}
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


async def measure_cold(stage: Stage, loaders: Cast) -> ColdFigures:
    """Races all of them on the main model."""
    (main,) = await stage.have(stage.sizes.main)
    (tiny,) = await stage.sources(TINY)
    await stage.twin("verified")
    async with (
        stage.store(MAIN, pool_bytes(main), VERIFY="import") as trusting,
        stage.store("verified", pool_bytes(main), VERIFY="always") as verifying,
        child("benchmarks.loading.raw", settings=threads()) as raw,
    ):
        await raw.answer()
        await loaders.converted(main.source, tiny)
        await loaders.warmed_up(tiny)
        await stage.settled()
        for store in (trusting, verifying):  # the pool is touched, and the skeleton built, from now on
            await loaders.worker.ask(f"load {store.address} {main.digest}")
            await loaders.worker.ask("free")
        parts = trusting.part_files(main.digest)
        entrants = [
            *(
                Entrant(
                    key,
                    f"raw, {way.text}",
                    raw,
                    f"{way.threads} {way.chunk_bytes} {parts[0].parent}",
                    files=parts,
                    proves=False,
                )
                for key, way in RAW.items()
            ),
            loaders.ours(OURS, "Whimbrel, verify=import", trusting, main.digest, cold=True),
            loaders.ours(VERIFIED, "Whimbrel, verify=always", verifying, main.digest, cold=True),
            *loaders.entrants(main.source, cold=True),
        ]
        stage.say("cold")
        race = Race(entrants, stage.sizes.rounds, cold=True)
        return ColdFigures(await race.run(stage.say), loaders.missing)
