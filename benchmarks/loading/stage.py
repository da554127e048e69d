"""What the parts of this benchmark share: models on the disk that is measured, and stores that have them."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.child import Child, child
from benchmarks.loading.contest import Entrant, threads
from benchmarks.loading.importing import Imported, imported
from benchmarks.loading.store import Store, store
from benchmarks.models import Llama, Moe, Spec, random_models

TINY = Llama(0.02)  # loaded once by each contestant before anything is timed
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
    """`scratch` is on the disk that is measured; `venvs` holds the peers' environments."""

    scratch: Path
    models: Path
    venvs: Path
    sizes: Sizes
    say: Callable[[str], None]
    _imports: dict[Spec, Imported] = field(default_factory=dict)

    async def sources(self, *specs: Spec) -> list[Path]:
        """The models as Hugging Face directories."""
        return await random_models(self.models, specs)

    @asynccontextmanager
    async def store(self, name: str, dram_bytes: int, **settings: str) -> AsyncIterator[Store]:
        """A store whose pool has that many bytes. Stores of one name have one directory, one after the other."""
        async with store(
            self.scratch, name, {"DRAM_BYTES": str(dram_bytes), "PREFAULT": "true", **settings}
        ) as started:
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
    """Room for these at once, rounded up as a store may round it."""
    return sum(-(-checkpoint.bytes // (2 << 20)) * (2 << 20) + (2 << 20) for checkpoint in checkpoints)


@asynccontextmanager
async def workers(stores: Sequence[Store], settings: Mapping[str, str] | None = None) -> AsyncIterator[list[Child]]:
    """One of our loaders for each of these stores, with its imports behind it."""
    own = {**threads(), **(settings or {})}
    async with AsyncExitStack() as stack:
        started = [
            await stack.enter_async_context(child("benchmarks.loading.ours", [one.address], own)) for one in stores
        ]
        for process in started:
            await process.answer()
        yield started


def cold_entrant(key: str, label: str, worker: Child, of: Store, digest: str) -> Entrant:
    """Ours, from disk: the store drops the checkpoint from its memory first."""

    async def evict() -> None:
        await of.evict(digest)

    return Entrant(key, label, worker, digest, evict, tier="disk")


def warm_entrant(key: str, label: str, worker: Child, digest: str) -> Entrant:
    """Ours, from the store's memory."""
    return Entrant(key, label, worker, digest, tier="dram")


def _linked(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*"), copy_function=os.link)
