"""A worker at the edge of the process: real sockets, a real lease, no weights. A test says how its loads go."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from grpc import aio
from whimbrel.inference.v1 import inference_pb2 as words
from whimbrel.worker.v1 import worker_pb2 as pb
from whimbrel.worker.v1.worker_pb2_grpc import WorkerServiceServicer, add_WorkerServiceServicer_to_server

from mesh.clock import Clock
from mesh.errors import MeshError
from mesh.facts import Kind, Member, ReplicaFacts, ReplicaState, WorkerFacts
from mesh.interceptor import Surround
from mesh.state.connection import State
from mesh.state.leases import Membership

Context = aio.ServicerContext[Any, Any]
SIZE = 12  # bytes of a replica, in a world where weights take 10 and a KV pool 2
KV = 2


@dataclass(frozen=True, slots=True)
class Unloaded:
    """An unload that was asked for, and when."""

    model: str
    at_s: float
    digest: str = "m@1"


class FakeWorker(WorkerServiceServicer):
    """Publishes what the real one would: a replica loads, is ready, is gone."""

    def __init__(self, membership: Membership, clock: Clock, memory: int, slots: int) -> None:
        self._membership, self._clock = membership, clock
        self._memory, self._slots = memory, slots
        self._replicas: dict[tuple[str, str], ReplicaFacts] = {}
        self.running: dict[str, int] = {}  # by digest, as its next report will say
        self.loads: list[pb.LoadRequest] = []
        self.unloads: list[Unloaded] = []
        self.changed = asyncio.Event()  # something was asked of it
        self.go = asyncio.Event()  # loads end when it is set
        self.go.set()
        self.tells = True  # progress, beside the end
        self.fails: MeshError | None = None
        self.silent = False
        self.publish()

    def publish(self) -> None:
        """Says what is here, and how many requests it runs."""
        if self.silent:
            return
        replicas = tuple(replace(r, running=self.running.get(r.digest, 0)) for r in self._replicas.values())
        facts = WorkerFacts("host", self._memory, KV, self._slots, replicas)
        self._membership.publish(replace(self._membership.member, worker=facts))

    def show(self, model: str, state: ReplicaState | None, digest: str = "") -> None:
        """Changes a replica's state; None: it is gone."""
        digest = digest or f"{model}@1"
        if state is None:
            self._replicas.pop((model, digest), None)
        else:
            self._replicas[model, digest] = ReplicaFacts(model, digest, state, SIZE)
        self.publish()

    async def Load(self, request: pb.LoadRequest, context: Context) -> AsyncIterator[pb.LoadResponse]:  # noqa: N802
        """Half the bytes, a wait for `go`, the rest."""
        self.loads.append(request)
        self.changed.set()
        ready = False
        self.show(request.model, ReplicaState.LOADING, request.digest)
        try:
            if self.tells:
                yield _progress(5)
            await self.go.wait()
            if self.fails:
                raise self.fails
            if self.tells:
                yield _progress(10)
            self.show(request.model, ReplicaState.READY, request.digest)
            ready = True
            yield pb.LoadResponse(loaded=pb.Loaded(tier=words.TIER_DISK, bytes=10))
        finally:
            if not ready:
                self.show(request.model, None, request.digest)

    async def Unload(self, request: pb.UnloadRequest, context: Context) -> pb.UnloadResponse:  # noqa: N802
        """At once, unless it fails."""
        self.unloads.append(Unloaded(request.model, self._clock.now(), request.digest))
        self.changed.set()
        if self.fails:
            raise self.fails
        self.show(request.model, None, request.digest)
        return pb.UnloadResponse()


@dataclass(frozen=True, slots=True)
class Served:
    """A fake worker on its socket."""

    address: str
    fake: FakeWorker
    life: AsyncExitStack

    async def crash(self) -> None:
        """It answers nobody any more; its lease and its last facts stay."""
        self.fake.silent = True
        await self.life.aclose()


@asynccontextmanager
async def worker(
    state: State, worker_id: str, clock: Clock, *, memory: int = SIZE, slots: int = 2
) -> AsyncIterator[Served]:
    """Serves and holds its lease until the block ends."""
    async with AsyncExitStack() as life:
        server = aio.server(interceptors=[Surround()])
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        member = Member(Kind.WORKER, worker_id, "n1", address)
        async with Membership(state, member, lease_s=60.0) as membership:
            # nobody calls the methods that it lacks
            fake = FakeWorker(membership, clock, memory, slots)  # type: ignore[abstract]
            add_WorkerServiceServicer_to_server(fake, server)
            await server.start()
            life.push_async_callback(server.stop, None)
            yield Served(address, fake, life)


def _progress(done: int) -> pb.LoadResponse:
    return pb.LoadResponse(progress=words.LoadProgress(tier=words.TIER_DISK, bytes_done=done, bytes_total=10))


def of_model(unloads: Iterable[Unloaded], model: str) -> list[float]:
    """When a model was unloaded."""
    return [unloaded.at_s for unloaded in unloads if unloaded.model == model]
