"""What the parts of this benchmark share: models on the disk that is measured, and stores that have them."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.loading.importing import Imported, imported
from benchmarks.loading.store import Store, store
from benchmarks.memory import LOOK_S, memory_of
from benchmarks.models import Llama, Moe, Spec, random_models
from benchmarks.series import BenchmarkBroken

TINY = Llama(0.02)  # loaded once by each contestant before anything is timed
SEGMENT_BYTES = 64 << 20  # WHIMBREL_SEGMENT_BYTES, as it comes
TOUCH_S = 120.0
MAIN = "main"  # the store that imports


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the models are, and how often each race is run."""

    main: Llama
    scale: tuple[Llama, ...]  # beside the main one
    crowd: tuple[Llama, ...]  # loaded at once
    moe: Moe
    rounds: int

    @classmethod
    def of(cls, main_b: float, rounds: int) -> "Sizes":
        """Everything in proportion to the main model."""
        crowd = tuple(Llama(max(0.02, round(main_b / 2, 2)), seed) for seed in range(1, 5))
        scale = (Llama(max(0.02, round(main_b / 4, 2))), Llama(2 * main_b))
        return cls(Llama(main_b), scale, crowd, Moe(24, 64) if main_b >= 1 else Moe(8, 32), rounds)


@dataclass(frozen=True, slots=True)
class Stage:
    """`scratch` is on the disk that is measured."""

    scratch: Path
    models: Path
    sizes: Sizes
    say: Callable[[str], None]
    _sources: dict[Spec, Path] = field(default_factory=dict)
    _imports: dict[Spec, Imported] = field(default_factory=dict)

    async def sources(self, *specs: Spec) -> list[Path]:
        """The models as Hugging Face directories."""
        missing = [spec for spec in specs if spec not in self._sources]
        if missing:
            self._sources.update(zip(missing, await random_models(self.models, missing), strict=True))
        return [self._sources[spec] for spec in specs]

    @asynccontextmanager
    async def store(self, name: str, dram_bytes: int, **settings: str) -> AsyncIterator[Store]:
        """A store whose pool has that many bytes, all touched. Stores of one name have one directory, in turn."""
        own = {"DRAM_BYTES": str(dram_bytes), "PREFAULT": "true", **settings}
        async with store(self.scratch, name, own) as started:
            await _touched(started.pid, dram_bytes)
            yield started

    async def have(self, *specs: Spec) -> list[Imported]:
        """The models as checkpoints of the main store, imported if need be."""
        missing = [spec for spec in specs if spec not in self._imports]
        if missing:
            sources = await self.sources(*missing)
            async with self.store(MAIN, dram_bytes=0) as main:
                for spec, source in zip(missing, sources, strict=True):
                    self.say(f"importing {spec.name}")
                    self._imports[spec] = await imported(main, source)
            await self.settled()
        return [self._imports[spec] for spec in specs]

    async def settled(self) -> None:
        """All that was written is on disk: dirty pages would stay in the page cache."""
        await asyncio.to_thread(os.sync)

    async def twin(self, name: str) -> None:
        """A second directory for a store, with the main one's checkpoints by hard links: the same bytes on disk."""
        await asyncio.to_thread(_linked, self.scratch / MAIN, self.scratch / name)


def pool_bytes(*checkpoints: Imported) -> int:
    """Room for these at once, each in whole segments, so that all of it can be touched before."""
    return sum(-(-checkpoint.bytes // SEGMENT_BYTES) * SEGMENT_BYTES for checkpoint in checkpoints)


async def _touched(pid: int, dram_bytes: int) -> None:
    """Returns when the store has that much shared memory; it says so nowhere, so its pages are counted."""
    try:
        async with asyncio.timeout(TOUCH_S):
            while True:
                if memory_of([pid]).shared >= dram_bytes:
                    return
                await asyncio.sleep(LOOK_S)
    except TimeoutError as error:
        raise BenchmarkBroken(f"the store did not touch {dram_bytes} bytes of memory; are they free?") from error


def _linked(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*"), copy_function=os.link)
