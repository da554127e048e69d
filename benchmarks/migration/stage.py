"""What the parts share: a cluster of two workers that both have the model, and requests that are moved between them."""

import itertools
import random
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.migration.watched import Watched, watching
from benchmarks.models import Narrow, random_models
from benchmarks.report import say
from benchmarks.series import BenchmarkBroken
from cli.cluster import ClusterOptions, LocalCluster
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import Model, MoveOutcome, SamplingWishes
from mesh.requests import MoveKind

MODEL = "narrow"
SPEC = Narrow(layers=12, positions=16384)
WORKERS = 2
WORDS = ("wader", "tide", "moor", "storm", "curlew", "shore", "north", "wing", "salt", "reed", "call", "flock")
WARM_TOKENS = 4
CLUSTER: Mapping[str, str] = {
    "WHIMBREL_KV_BYTES": str(1 << 30),
    "WHIMBREL_HOST_KV_BYTES": "0",  # what was moved before is not found again
    "WHIMBREL_NUMERICS": "batch_invariant",
    "OMP_NUM_THREADS": "1",
}


ALIKE: Mapping[str, Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    contexts: tuple[int, ...]  # tokens, about
    rounds: int  # moves of each context and way
    others: int  # that run beside a move
    seconds: float  # of one look at them


FULL = Sizes((100, 1000, 4000, 8000), 10, 4, 3.0)
QUICK = Sizes((100, 1000), 2, 2, 1.0)


class Stage:
    """A running cluster; each request has a prompt of its own, so that no worker knows it."""

    def __init__(self, client: GatewayClient, sizes: Sizes, kv_bytes_per_token: int) -> None:
        self.client, self.sizes, self.kv_bytes_per_token = client, sizes, kv_bytes_per_token
        self._numbers = itertools.count()

    def asked(self, context: int, tokens: int = 4096) -> AbstractAsyncContextManager[Watched]:
        """A request with a prompt of about so many tokens, as it runs."""
        number = next(self._numbers)
        rng, request_id = random.Random(number), f"bench-{number}"
        prompt = " ".join([str(number), *rng.choices(WORDS, k=max(1, context // 2))])
        sampling = SamplingWishes(max_tokens=tokens, temperature=0.0, ignore_eos=True)
        return watching(request_id, self.client.generate(MODEL, prompt, sampling, request_id=request_id))

    async def move(self, watched: Watched, kind: MoveKind | None = None) -> MoveOutcome:
        """To the other worker."""
        return await self.client.move(watched.request_id, kind=kind)


@asynccontextmanager
async def staged(
    models_dir: Path, sizes: Sizes, settings_of: Mapping[str, Mapping[str, str]] = ALIKE
) -> AsyncIterator[Stage]:
    """A cluster with the model on both workers; `settings_of` are more settings, by kind."""
    (source,) = await random_models(models_dir, [SPEC])
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-") as scratch:
        options = ClusterOptions(Path(scratch), workers=WORKERS, settings=CLUSTER, settings_of=settings_of)
        cluster = LocalCluster(options)
        async with cluster, cluster.client() as client:
            deployed = await deploy(client, MODEL, source=str(source), min_replicas=WORKERS)
            stage = Stage(client, sizes, deployed.checkpoint.kv_bytes_per_token)
            await warm(stage)
            yield stage


async def deploy(client: GatewayClient, name: str, **options: Any) -> Model:
    """See GatewayClient.deploy."""
    events = client.deploy(name, **options)
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Model):
                return event
    raise BenchmarkBroken("deploying ended without a model")


async def warm(stage: Stage) -> None:
    """There and back in both ways: code is loaded, and rates are learnt."""
    say("warming up")
    for kind in (MoveKind.KV, MoveKind.TOKENS, MoveKind.KV, MoveKind.TOKENS):
        async with stage.asked(stage.sizes.contexts[0]) as watched:
            await watched.until(WARM_TOKENS)
            await stage.move(watched, kind)
            await watched.more(WARM_TOKENS)
