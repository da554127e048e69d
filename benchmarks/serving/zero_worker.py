"""A worker whose engine does no work: what is left is the mesh. Run as services.worker is, with two settings more.

Its one replica is ready from the start, and every request is answered at once with as many tokens as it asks for.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from pydantic import Field
from whimbrel.worker.v1 import worker_pb2 as pb

from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.facts import Kind, ReplicaFacts, ReplicaState, WorkerFacts
from mesh.requests import FinishReason
from mesh.serve import Ground, Mounted, main, owned
from services.worker.engine.batch import Limits
from services.worker.engine.engine import Engine
from services.worker.engine.request import EngineRequest, EngineStats, ReplicaStats, TokenStep
from services.worker.guides import Guides
from services.worker.loading.adapting import AdapterLoader
from services.worker.loading.host import Host
from services.worker.loading.loader import Loader
from services.worker.loading.skeletons import Skeletons
from services.worker.relay import Relay
from services.worker.replicas import Replicas
from services.worker.report import Report
from services.worker.service import NAME, Context, WorkerServicer
from services.worker.settings import WorkerSettings

TOKEN = 300  # an ordinary one in the tokenizer of benchmarks.models


class ZeroWorkerSettings(WorkerSettings):
    """WHIMBREL_*; see each description."""

    model: str = Field(min_length=1, description="The model that it seems to have.")
    digest: str = Field(min_length=1, description="The model's checkpoint.")
    slots: int = Field(1024, ge=1, description="Requests that it takes at once.")


class ZeroEngine(Engine):
    """Answers in the call that submits. There is no thread, so nothing to start or end."""

    def __init__(self, on_steps: Callable[[list[TokenStep]], None], model: str) -> None:
        super().__init__(on_steps)
        self._say, self._model = on_steps, model
        self._answered = self._given = 0

    def start(self) -> None:
        """Nothing to start."""

    def close(self) -> None:
        """Nothing to end."""

    def submit(self, request: EngineRequest) -> None:
        """One step with everything in it."""
        tokens = (TOKEN,) * request.params.max_tokens
        self._answered, self._given = self._answered + 1, self._given + len(tokens)
        self._say([TokenStep(request.request_id, 0, tokens, FinishReason.LENGTH)])

    def cancel(self, request_id: str) -> None:
        """Everything has ended already."""

    def stats(self) -> EngineStats:
        """Each request counts as a step."""
        counts = ReplicaStats(
            running=0, waiting=0, free_blocks=0, total_blocks=0,
            steps=self._answered, tokens=self._given, prefix_tokens=0, preemptions=0,
        )  # fmt: skip
        return EngineStats({self._model: counts})


class ZeroServicer(WorkerServicer):
    """Its one replica was never loaded, so only the engine knows of it."""

    def __init__(self, worker_id: str, replicas: Replicas, relay: Relay, engine: Engine, memory_bytes: int) -> None:
        super().__init__(worker_id, replicas, relay, engine, memory_bytes)
        self._counts = engine.stats

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:  # noqa: N802
        """How many requests it has answered."""
        counts = self._counts().replicas.items()
        return pb.GetStatusResponse(replicas=[pb.ReplicaStatus(model=model, steps=one.steps) for model, one in counts])


@asynccontextmanager
async def build(settings: ZeroWorkerSettings, ground: Ground) -> AsyncIterator[Sequence[Mounted]]:
    """The worker, standing on the ground."""
    channels = Channels()
    stores = StoreClient(channels)
    relay = Relay(asyncio.get_running_loop())
    engine = ZeroEngine(relay.on_steps, settings.model)
    skeletons = Skeletons(settings.skeletons, settings.scratch_dir)
    device = Host(stores, settings.transport)
    loader = Loader(stores, device, skeletons, settings.kv_bytes, Limits())
    adapters = AdapterLoader(stores, device)
    replicas = Replicas(engine, loader, adapters, memory_bytes=settings.memory_bytes, kv_bytes=settings.kv_bytes)
    ready = ReplicaFacts(settings.model, settings.digest, ReplicaState.READY, settings.kv_bytes)

    def facts() -> WorkerFacts:
        return WorkerFacts("host", settings.memory_bytes, settings.kv_bytes, settings.slots, (ready,))

    report = Report(ground.membership, facts)
    relay.begin(engine, Guides(stores, replicas.order_of, settings.scratch_dir))
    relay.on_load = report.load
    report.life()
    servicer = ZeroServicer(ground.me.id, replicas, relay, engine, settings.memory_bytes)
    async with owned(_drain(ground, relay), ground):
        yield [Mounted(NAME, servicer.mount)]
    await channels.close()


async def _drain(ground: Ground, relay: Relay) -> None:
    """A gateway's line stays open as long as the gateway lives; at shutdown it must not hold the server."""
    await ground.draining.wait()
    relay.drain()


if __name__ == "__main__":
    main(Kind.WORKER, ZeroWorkerSettings, build)
