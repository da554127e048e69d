"""Calling a gateway as its clients do: the typed face of Generation, Model and ClusterService."""

import itertools
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from grpc import aio
from grpc_status import rpc_status
from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.gateway.v1 import gateway_pb2_grpc as rpc

from mesh.clients.channel import limit, stream, unary
from mesh.clients.explanation_wire import explanation_from
from mesh.clients.gateway_records import (
    MODELS_CHOICE,
    AnswerEvent,
    ChatMessage,
    DrainLeft,
    EmbedEvent,
    MemberChange,
    MemberStatus,
    Model,
    ModelChange,
    MoveOutcome,
    Prefetching,
    SamplingWishes,
    Tool,
)
from mesh.clients.gateway_wire import (
    POOLINGS,
    answer_from,
    deploy_from,
    drain_from,
    duration_or_none,
    embed_from,
    import_from,
    member_change_from,
    member_from,
    message_to,
    model_change_from,
    model_from,
    move_from,
    prefetching_from,
    request_from,
    sampling_to,
    tool_to,
)
from mesh.clients.move_wire import move_kind_to
from mesh.clients.returning import PATIENCE_S, Request, Returning
from mesh.clients.service_wire import service_to
from mesh.clients.wire import TIERS, numerics_to
from mesh.errors import NoRoom, Unreachable
from mesh.explanation import Explanation
from mesh.facts import CheckpointSummary, NumericsLevel, Tier
from mesh.requests import PLAIN, ImportProgress, MoveKind, Pooling, RequestState, ServiceClass

T = TypeVar("T")
R = TypeVar("R")
AnswerCall = aio.UnaryStreamCall[Any, pb.GenerateResponse | pb.ChatResponse]
Asking = Callable[..., Any]  # a stub's Generate or Chat
ANSWER_S = 600.0
IMPORT_S = 3600.0
EVICT_S = 60.0
MOVE_S = 600.0
WATCH_S = 24 * 3600.0


class NoGateway(Unreachable):
    """Nobody answered at the gateway's address, as against a gateway that says who else is gone."""

    default_reason = "NO_GATEWAY"


class GatewayClient:
    """Calls one gateway over `channel`. Errors are MeshErrors; NoGateway when nobody answers at `address`.

    A stream's call begins at once; closing the iteration (contextlib.aclosing) cancels it. An answer whose stream
    breaks is asked for again, from where it is, there and at the gateways of the channels `elsewhere`, for as long as
    `patience_s` without a new token.
    """

    def __init__(
        self,
        channel: aio.Channel,
        address: str,
        *,
        elsewhere: Sequence[aio.Channel] = (),
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._generations = [rpc.GenerationServiceStub(one) for one in (channel, *elsewhere)]
        self._patience_s = patience_s
        self._embedding = rpc.EmbeddingServiceStub(channel)
        self._models = rpc.ModelServiceStub(channel)
        self._cluster = rpc.ClusterServiceStub(channel)
        self._address = address
        self._peer = f"gateway at {address}"

    def generate(
        self,
        model: str,
        prompt: str,
        sampling: SamplingWishes = MODELS_CHOICE,
        *,
        answers: int = 1,
        service: ServiceClass = PLAIN,
        request_id: str = "",
        within_s: float = ANSWER_S,
    ) -> AsyncGenerator[AnswerEvent]:
        """Continues `prompt`: Progress while the model starts, one Started, Deltas of each answer, one Finished."""
        request = pb.GenerateRequest(
            model=model,
            text=prompt,
            sampling=sampling_to(sampling),
            n=answers,
            service_class=service_to(service),
            request_id=request_id,
        )
        return self._answered(request, [one.Generate for one in self._generations], within_s)

    def chat(
        self,
        model: str,
        messages: Sequence[ChatMessage],
        sampling: SamplingWishes = MODELS_CHOICE,
        *,
        tools: Sequence[Tool] = (),
        template_arguments: str = "",
        answers: int = 1,
        service: ServiceClass = PLAIN,
        request_id: str = "",
        within_s: float = ANSWER_S,
    ) -> AsyncGenerator[AnswerEvent]:
        """The same for a conversation, rendered with the model's chat template; its arguments are a JSON object."""
        request = pb.ChatRequest(
            model=model,
            messages=map(message_to, messages),
            sampling=sampling_to(sampling),
            tools=map(tool_to, tools),
            template_arguments=template_arguments,
            n=answers,
            service_class=service_to(service),
            request_id=request_id,
        )
        return self._answered(request, [one.Chat for one in self._generations], within_s)

    def embed(
        self,
        model: str,
        texts: Sequence[str],
        pooling: Pooling | None = None,
        *,
        truncate: bool = False,
        service: ServiceClass = PLAIN,
        within_s: float = ANSWER_S,
    ) -> AsyncGenerator[EmbedEvent]:
        """Progress while the model starts, Vectors in the order of the texts, one Embedded. None pools as the model's
        files say."""
        wanted = POOLINGS[pooling] if pooling else pb.POOLING_UNSPECIFIED
        request = pb.EmbedRequest(
            model=model,
            texts=texts,
            pooling=wanted,
            truncate=truncate,
            service_class=service_to(service),
        )
        return self._read(self._embedding.Embed(request, timeout=limit(within_s)), embed_from)

    def import_checkpoint(self, source: str, base: str = "") -> AsyncGenerator[ImportProgress | CheckpointSummary]:
        """Imports what lies at `source`: progress, then the checkpoint. `base` is the digest that an adapter adapts."""
        request = pb.ModelServiceImportRequest(source=source, base=base)
        return self._read(self._models.Import(request, timeout=limit(IMPORT_S)), import_from)

    def deploy(
        self,
        name: str,
        *,
        source: str = "",
        checkpoint: str = "",
        base: str = "",
        keep_alive_s: float | None = None,
        numerics: NumericsLevel | None = None,
        min_replicas: int = 0,
        max_replicas: int = 0,
        target_concurrency: int = 0,
    ) -> AsyncGenerator[ImportProgress | Model]:
        """Adds a model from a source directory or a checkpoint's digest: the import's progress, then the model. `base`
        is the digest of what a source adapts that is an adapter."""
        spec = pb.ModelSpec(
            checkpoint=checkpoint,
            source=source,
            base=base,
            keep_alive=duration_or_none(keep_alive_s),
            numerics=numerics_to(numerics),
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            target_concurrency=target_concurrency,
        )
        request = pb.ModelServiceDeployRequest(name=name, spec=spec)
        return self._read(self._models.Deploy(request, timeout=limit(IMPORT_S)), deploy_from)

    async def update(
        self,
        name: str,
        *,
        checkpoint: str | None = None,
        keep_alive_s: float | None = None,
        numerics: NumericsLevel | None = None,
        min_replicas: int | None = None,
        max_replicas: int | None = None,
        target_concurrency: int | None = None,
        etag: str = "",
    ) -> Model:
        """Changes what is given. With `etag`, Conflict when somebody wrote in between."""
        spec = pb.ModelSpec(
            checkpoint=checkpoint or "",
            keep_alive=duration_or_none(keep_alive_s),
            numerics=numerics_to(numerics),
            min_replicas=min_replicas or 0,
            max_replicas=max_replicas or 0,
            target_concurrency=target_concurrency or 0,
        )
        request = pb.ModelServiceUpdateRequest(model=pb.Model(name=name, etag=etag, spec=spec))
        given = {
            "spec.checkpoint": checkpoint,
            "spec.keep_alive": keep_alive_s,
            "spec.numerics": numerics,
            "spec.min_replicas": min_replicas,
            "spec.max_replicas": max_replicas,
            "spec.target_concurrency": target_concurrency,
        }
        request.update_mask.paths.extend(path for path, value in given.items() if value is not None)
        with self._named():
            response = await unary(self._models.Update(request, timeout=limit()), self._peer)
        return model_from(response.model)

    async def rollback(self, name: str, etag: str = "") -> Model:
        """Back to the checkpoint before the last update; Unsuitable when there is none."""
        request = pb.ModelServiceRollbackRequest(name=name, etag=etag)
        with self._named():
            response = await unary(self._models.Rollback(request, timeout=limit()), self._peer)
        return model_from(response.model)

    def prefetch(
        self, name: str = "", tier: Tier = Tier.DRAM, store_id: str = "", *, checkpoint: str = ""
    ) -> AsyncGenerator[Prefetching]:
        """Brings a model's checkpoint, or the one of that digest, to DISK or DRAM of a store: its progress, to the end.
        Leaving gives up."""
        request = pb.ModelServicePrefetchRequest(name=name, tier=TIERS[tier], store_id=store_id, checkpoint=checkpoint)
        return self._read(self._models.Prefetch(request, timeout=limit(IMPORT_S)), prefetching_from)

    async def evict(self, name: str = "", tier: Tier = Tier.DRAM, store_id: str = "", *, checkpoint: str = "") -> int:
        """Drops a model's checkpoint, or the one of that digest, from DISK or DRAM of one store or of all; returns the
        bytes freed. Unsuitable where it is in use."""
        request = pb.ModelServiceEvictRequest(name=name, tier=TIERS[tier], store_id=store_id, checkpoint=checkpoint)
        with self._named():
            response = await unary(self._models.Evict(request, timeout=limit(EVICT_S)), self._peer)
        return response.freed_bytes

    async def delete(self, name: str, etag: str = "") -> None:
        """Removes a model; NotFound when there is none."""
        request = pb.ModelServiceDeleteRequest(name=name, etag=etag)
        with self._named():
            await unary(self._models.Delete(request, timeout=limit()), self._peer)

    async def get(self, name: str) -> Model:
        """One model; NotFound when there is none."""
        with self._named():
            response = await unary(self._models.Get(pb.ModelServiceGetRequest(name=name), timeout=limit()), self._peer)
        return model_from(response.model)

    async def list(self) -> tuple[Model, ...]:
        """Every model, page after page."""
        models: tuple[Model, ...] = ()
        token = ""
        while True:
            request = pb.ModelServiceListRequest(page_token=token)
            with self._named():
                page = await unary(self._models.List(request, timeout=limit()), self._peer)
            models += tuple(model_from(model) for model in page.models)
            if not (token := page.next_page_token):
                return models

    def watch(self, names: Sequence[str] = ()) -> AsyncGenerator[ModelChange]:
        """The named models (none named: all), a bookmark, then each change."""
        request = pb.ModelServiceWatchRequest(names=names)
        return self._read(self._models.Watch(request, timeout=limit(WATCH_S)), model_change_from)

    async def explain(self, model: str) -> Explanation:
        """Why requests for a model are where they are, and what every alternative would cost; NotFound."""
        request = pb.ClusterServiceExplainRequest(model=model)
        with self._named():
            response = await unary(self._cluster.Explain(request, timeout=limit()), self._peer)
        return explanation_from(response.explanation)

    async def cluster(self) -> tuple[MemberStatus, ...]:
        """Every live process."""
        with self._named():
            response = await unary(self._cluster.Get(pb.ClusterServiceGetRequest(), timeout=limit()), self._peer)
        return tuple(member_from(member) for member in response.cluster.members)

    def watch_cluster(self) -> AsyncGenerator[MemberChange]:
        """Every live process, a bookmark, then each change."""
        request = pb.ClusterServiceWatchRequest()
        return self._read(self._cluster.Watch(request, timeout=limit(WATCH_S)), member_change_from)

    def drain(self, worker_id: str = "", node: str = "") -> AsyncGenerator[DrainLeft]:
        """Empties a worker, or all of a node: what is left, until nothing is. Leaving does not undo it."""
        request = pb.ClusterServiceDrainRequest(**_target(worker_id, node))
        return self._read(self._cluster.Drain(request, timeout=limit(WATCH_S)), drain_from)

    async def undrain(self, worker_id: str = "", node: str = "") -> None:
        """Lets it work again; NotFound when it is not drained."""
        request = pb.ClusterServiceUndrainRequest(**_target(worker_id, node))
        with self._named():
            await unary(self._cluster.Undrain(request, timeout=limit()), self._peer)

    async def move(self, request_id: str, *, to_worker_id: str = "", kind: MoveKind | None = None) -> MoveOutcome:
        """Has a running request go on at another worker, at any by default; returns when it does."""
        request = pb.ClusterServiceMoveRequest(
            request_id=request_id, to_worker_id=to_worker_id, kind=move_kind_to(kind)
        )
        with self._named():
            return move_from(await unary(self._cluster.Move(request, timeout=limit(MOVE_S)), self._peer))

    async def requests(self) -> tuple[RequestState, ...]:
        """Those that wait or run, the oldest first."""
        with self._named():
            call = self._cluster.ListRequests(pb.ClusterServiceListRequestsRequest(), timeout=limit())
            return tuple(map(request_from, (await unary(call, self._peer)).requests))

    def _answered(self, request: Request, methods: Sequence[Asking], within_s: float) -> AsyncGenerator[AnswerEvent]:
        asking = Returning(request, self._patience_s)
        first = methods[0](request, timeout=limit(within_s))
        return self._read_on(asking, first, [*methods[1:], methods[0]], within_s)

    async def _read_on(
        self, asking: Returning, call: AnswerCall, methods: Sequence[Asking], within_s: float
    ) -> AsyncGenerator[AnswerEvent]:
        """The answer, by `call` and then by each of the methods in turn."""
        untried = len(methods) - 1
        for ask in itertools.cycle(methods):
            try:
                async with aclosing(self._read(call, answer_from)) as events:
                    async for event in events:
                        if told := asking.take(event):
                            yield told
                return
            except (Unreachable, NoRoom) as error:
                gone = isinstance(error, NoGateway)
                if not (gone and untried > 0):
                    await asking.pause(error, gone=gone)
                untried -= 1
            call = ask(asking.request(), timeout=limit(max(0.0, within_s - asking.passed_s)))

    async def _read(self, call: aio.UnaryStreamCall[Any, T], convert: Callable[[T], R]) -> AsyncGenerator[R]:
        try:
            with self._named():
                async for message in stream(call, self._peer):
                    yield convert(message)
        finally:
            call.cancel()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Tells a gateway that is not there from one that says that something behind it is not."""
        try:
            yield
        except Unreachable as error:
            cause = error.__cause__
            if isinstance(cause, aio.AioRpcError) and rpc_status.from_call(cause) is None:
                innermost = (cause.details() or "").rpartition(": ")[2]
                raise NoGateway(f"no gateway answers at {self._address} ({innermost})") from cause
            raise


def _target(worker_id: str, node: str) -> dict[str, str]:
    """The one field of a drain's oneof."""
    return {"node": node} if node else {"worker_id": worker_id}
