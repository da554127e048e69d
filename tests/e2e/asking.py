"""Asking a cluster and looking at it: whole answers, worker status by gRPC, and waiting until something is so."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.gateway.v1.gateway_pb2_grpc import GenerationServiceStub
from whimbrel.inference.v1 import inference_pb2
from whimbrel.worker.v1 import worker_pb2
from whimbrel.worker.v1.worker_pb2_grpc import WorkerServiceStub

from cli.cluster import LocalCluster
from mesh.clients.channel import connect, stream, unary
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import AnswerEvent, Delta, Finished, Model, SamplingWishes, Started
from mesh.clients.gateway_wire import answer_from, sampling_to
from mesh.facts import NumericsLevel
from mesh.requests import Phase, Progress

T = TypeVar("T")
PROMPT = "The tide is"
SHORT = SamplingWishes(temperature=0.0, max_tokens=4, ignore_eos=True)
LONG = SamplingWishes(temperature=0.0, max_tokens=1500, ignore_eos=True)
PATIENCE_S = 120.0  # of a test, for what takes a second on an idle machine
LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Answer:
    """All that one answer's stream held, in order."""

    events: tuple[AnswerEvent, ...]

    @property
    def progress(self) -> tuple[Progress, ...]:
        """Before the start."""
        return tuple(event for event in self.events if isinstance(event, Progress))

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases in order, each once."""
        return tuple(dict.fromkeys(progress.phase for progress in self.progress))

    @property
    def deltas(self) -> tuple[Delta, ...]:
        """The answer as it came."""
        return tuple(event for event in self.events if isinstance(event, Delta))

    @property
    def token_ids(self) -> tuple[int, ...]:
        """All tokens."""
        return tuple(token for delta in self.deltas for token in delta.token_ids)

    @property
    def text(self) -> str:
        """All text."""
        return "".join(delta.text for delta in self.deltas)

    def of(self, index: int) -> "Answer":
        """One of several answers."""
        return Answer(tuple(delta for delta in self.deltas if delta.index == index))

    @property
    def started(self) -> Started:
        """The one start."""
        (started,) = (event for event in self.events if isinstance(event, Started))
        return started

    @property
    def finished(self) -> Finished:
        """The one end."""
        (finished,) = (event for event in self.events if isinstance(event, Finished))
        return finished


async def whole(events: AsyncGenerator[AnswerEvent]) -> Answer:
    """Reads a stream to its end."""
    async with aclosing(events):
        return Answer(tuple([event async for event in events]))


async def ask(client: GatewayClient, model: str, sampling: SamplingWishes = SHORT) -> Answer:
    """A short answer, to its end."""
    return await whole(client.generate(model, PROMPT, sampling, within_s=PATIENCE_S))


async def generate_ids(
    address: str, model: str, prompt: tuple[int, ...], sampling: SamplingWishes, within_s: float = PATIENCE_S
) -> AsyncGenerator[AnswerEvent]:
    """As GatewayClient.generate, with token ids for a prompt."""
    request = pb.GenerateRequest(
        model=model, token_ids=inference_pb2.TokenIds(ids=prompt), sampling=sampling_to(sampling)
    )
    async with connect(address) as channel:
        call = GenerationServiceStub(channel).Generate(request, timeout=within_s)
        async with aclosing(stream(call, "gateway")) as responses:
            async for response in responses:
                yield answer_from(response)


@asynccontextmanager
async def answering(
    client: GatewayClient, model: str, tokens: int = 3, within_s: float = 300.0
) -> AsyncIterator[tuple[Started, AsyncGenerator[AnswerEvent]]]:
    """A long answer that has given `tokens` tokens; leaving cancels it."""
    events = client.generate(model, PROMPT, LONG, within_s=within_s)
    async with aclosing(events):
        yield await begun(events, tokens), events


async def begun(events: AsyncGenerator[AnswerEvent], tokens: int = 3) -> Started:
    """Reads on until the answer has `tokens` tokens."""
    started: Started | None = None
    async for event in events:
        if isinstance(event, Started):
            started = event
        elif isinstance(event, Delta) and started and event.seq + len(event.token_ids) >= tokens:
            return started
    raise AssertionError("the answer ended before its time")


async def deploy(
    client: GatewayClient,
    name: str,
    *,
    source: str = "",
    checkpoint: str = "",
    keep_alive_s: float | None = None,
    numerics: NumericsLevel | None = None,
) -> Model:
    """Deploys a source or a checkpoint."""
    deploying = client.deploy(name, source=source, checkpoint=checkpoint, keep_alive_s=keep_alive_s, numerics=numerics)
    async with aclosing(deploying) as events:
        (model,) = [event async for event in events if isinstance(event, Model)]
    return model


async def until_model(client: GatewayClient, name: str, wanted: Callable[[Model], bool]) -> Model:
    """The model as soon as the gateway's watch shows it as wanted."""
    async with asyncio.timeout(PATIENCE_S), aclosing(client.watch([name])) as changes:
        async for change in changes:
            if change.model and wanted(change.model):
                return change.model
    raise AssertionError("the watch ended")


async def until(look: Callable[[], Awaitable[T]], wanted: Callable[[T], bool]) -> T:
    """What `look` finds as soon as it is as wanted. For what has no watch."""
    async with asyncio.timeout(PATIENCE_S):
        while not wanted(found := await look()):  # noqa: ASYNC110  GetStatus cannot be watched
            await asyncio.sleep(LOOK_S)
    return found


async def status(cluster: LocalCluster, worker_id: str) -> worker_pb2.GetStatusResponse:
    """A worker's own word."""
    async with connect(cluster.process(worker_id).address.result()) as channel:
        call = WorkerServiceStub(channel).GetStatus(worker_pb2.GetStatusRequest(), timeout=PATIENCE_S)
        return await unary(call, worker_id)


async def replica_status(cluster: LocalCluster, worker_id: str, model: str) -> worker_pb2.ReplicaStatus | None:
    """One replica's counters; None when the worker does not have it."""
    replicas = (await status(cluster, worker_id)).replicas
    return next((replica for replica in replicas if replica.model == model), None)


def is_idle(replica: worker_pb2.ReplicaStatus | None) -> bool:
    """Whether nothing runs on it, nothing waits and every block is free."""
    if replica is None:
        return False
    return replica.running == replica.waiting == 0 and replica.free_blocks == replica.total_blocks
