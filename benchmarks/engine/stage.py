"""What the parts of this benchmark share: models in both precisions, and a store that has them in its memory."""

import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Child, child
from benchmarks.engine.batch import Batch
from benchmarks.loading.store import Store, store
from benchmarks.models import Decoder, random_models

POOL_BYTES = 2 << 30
SEED = 4
VOCABULARY = 32_000


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is asked of each engine."""

    dtypes: tuple[str, ...]
    layers: int
    batches: tuple[int, ...]  # prompts at once
    prompt_tokens: int
    tokens: int  # generated for each prompt
    long_tokens: int  # of the prompt whose prefix is found again
    rounds: int


@dataclass(frozen=True, slots=True)
class Model:
    """One precision: as a Hugging Face directory, and as a checkpoint of a store."""

    dtype: str
    source: Path
    digest: str
    store: Store


@dataclass(frozen=True, slots=True)
class Stage:
    """`threads`: of torch, for everybody."""

    sizes: Sizes
    threads: int
    models: Mapping[str, Model]  # by dtype
    say: Callable[[str], None]

    def ours(self, model: Model, **settings: str) -> AbstractAsyncContextManager[Child]:
        """Our engine on a model; it says when it is ready. `settings` are a worker's, without the prefix."""
        own = {f"WHIMBREL_{name}": value for name, value in settings.items()}
        arguments = [model.store.address, model.digest]
        return child("benchmarks.engine.ours", arguments, {**threads(self.threads), **own})


@asynccontextmanager
async def stage(
    scratch: Path, kept: Path, sizes: Sizes, count: int, say: Callable[[str], None]
) -> AsyncIterator[Stage]:
    """Writes the models, unless they are kept already, and has them in a store's memory until the block ends."""
    say("writing the models")
    sources = await random_models(kept, [Decoder(dtype, sizes.layers) for dtype in sizes.dtypes])
    async with store(scratch, "engine", {"DRAM_BYTES": str(POOL_BYTES)}) as held:
        taken = [await held.take(source) for source in sources]
        models = {
            dtype: Model(dtype, source, checkpoint.digest, held)
            for dtype, source, checkpoint in zip(sizes.dtypes, sources, taken, strict=True)
        }
        yield Stage(sizes, count, models, say)


def threads(count: int) -> dict[str, str]:
    """As variables of a contestant's environment."""
    return {"OMP_NUM_THREADS": str(count)}


def batches(prompts: int, prompt_tokens: int, tokens: int) -> Iterator[Batch]:
    """Without end, each with other prompts than any before: no engine has seen a prefix of one. Always the same."""
    chance = random.Random(f"{SEED} {prompts} {prompt_tokens}")
    while True:
        drawn = [tuple(chance.randrange(3, VOCABULARY) for _ in range(prompt_tokens)) for _ in range(prompts)]
        yield Batch(tuple(drawn), tokens)
