"""The cluster that is replayed on: so little memory that models make way for each other, and some come from disk."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.formats import shards
from benchmarks.models import Llama, random_models
from cli.cluster import ClusterOptions, LocalCluster
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import Model
from sim.arrivals import Gaps, Law
from sim.request import Request
from sim.workload import Scope, Workload, model_name

FOREVER_S = 24 * 3600.0
SLACK = 1.03  # of a checkpoint over the tensors of its source: alignment, and segments of whole pages
SHORTER_PROMPT, SHORTER_ANSWER = 4, 8  # than the tabled lengths: a core computes less than a GPU


@dataclass(frozen=True, slots=True)
class Scene:
    """Models of equal size, `parameters_b` billions of weights each; `residents` fit a worker, `cached` the store's
    memory. Requests come in bursts, `rps` a second on average."""

    models: int = 6
    parameters_b: float = 0.2
    workers: int = 1
    residents: int = 2
    cached: int = 4
    slots: int = 4
    kv_bytes: int = 64 << 20
    rps: float = 0.8
    duration_s: float = 300.0
    warm_up_s: float = 30.0  # from the begin: both sides start empty, which is not what is compared

    def requests(self, seed: int) -> list[Request]:
        """What is asked, the same on both sides."""
        gaps = Gaps(Law.GAMMA, 1.5)
        drawn = Workload(
            self.models,
            self.rps,
            self.duration_s,
            seed,
            skew=0.9,
            gaps=gaps,
            scope=Scope.AGGREGATE,
            lengths=("gsm8k-like",),
        )
        return [_shorter(request) for request in drawn.requests()]


@dataclass(frozen=True, slots=True)
class Running:
    """The cluster while it runs: a client, and the models by the names that requests have."""

    scene: Scene
    client: GatewayClient
    models: tuple[Model, ...]
    options: ClusterOptions

    @property
    def worker_bytes(self) -> int:
        """Memory of each worker."""
        return int(self.options.settings_of["worker"]["WHIMBREL_MEMORY_BYTES"])

    @property
    def store_bytes(self) -> int:
        """Memory of the store."""
        return int(self.options.settings_of["store"]["WHIMBREL_DRAM_BYTES"])


@asynccontextmanager
async def running(scene: Scene, scratch: Path, models: Path, say: Callable[[str], None]) -> AsyncIterator[Running]:
    """Real processes, with every model deployed and on disk."""
    say(f"making {scene.models} random Llamas of {scene.parameters_b:g} billion bfloat16 weights")
    sources = await random_models(models, [Llama(scene.parameters_b, seed) for seed in range(scene.models)])
    options = ClusterOptions(scratch, workers=scene.workers, settings_of=_settings(scene, sources[0]))
    async with LocalCluster(options) as cluster, cluster.client() as client:
        deployed = []
        for number, source in enumerate(sources):
            events = client.deploy(model_name(number), source=str(source), keep_alive_s=FOREVER_S)
            deployed += [event async for event in events if isinstance(event, Model)]
        yield Running(scene, client, tuple(deployed), options)


def _settings(scene: Scene, source: Path) -> dict[str, dict[str, str]]:
    """Threads and memory. Packed copies of weights would be memory beside what the scene says."""
    size = round(SLACK * sum(path.stat().st_size for path in shards(source)))
    worker = {
        "WHIMBREL_MEMORY_BYTES": str(scene.residents * (size + scene.kv_bytes)),
        "WHIMBREL_KV_BYTES": str(scene.kv_bytes),
        "WHIMBREL_SLOTS": str(scene.slots),
        "WHIMBREL_PACKED_BYTES": "0",
        "WHIMBREL_THREADS": "1",
    }
    store = {"WHIMBREL_DRAM_BYTES": str(scene.cached * size), "WHIMBREL_PREFAULT": "true"}
    return {"worker": worker, "store": store, "scheduler": {"WHIMBREL_HOLD_S": "600"}}


def _shorter(request: Request) -> Request:
    prompt, answer = request.prompt_tokens // SHORTER_PROMPT, request.answer_tokens // SHORTER_ANSWER
    return replace(request, prompt_tokens=max(8, prompt), answer_tokens=max(2, answer))
