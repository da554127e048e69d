"""The worker on the wire."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import structlog
from grpc import aio
from whimbrel.worker.v1 import worker_pb2 as pb
from whimbrel.worker.v1.worker_pb2_grpc import WorkerServiceServicer, add_WorkerServiceServicer_to_server

from mesh.checkpoint.layout import is_digest
from mesh.clients.receive_wire import Part, part_from
from mesh.clients.relay import Command, command_from, response_to
from mesh.clients.wire import NUMERICS, TIERS, load_progress_to, numerics_wanted, runner_to
from mesh.clients.worker import POOLINGS
from mesh.errors import InvalidRequest
from mesh.requests import LoadProgress
from services.worker.embeddings import embed
from services.worker.engine.engine import Engine
from services.worker.fence import Fence
from services.worker.loading.loader import Order
from services.worker.naming import replica_name
from services.worker.relay import Relay
from services.worker.replicas import Replicas

log = structlog.get_logger()
NAME = "whimbrel.worker.v1.WorkerService"
Context = aio.ServicerContext[Any, Any]
_POOLINGS = {number: pooling for pooling, number in POOLINGS.items()}


class WorkerServicer(WorkerServiceServicer):
    """Load, Unload, Relay, Receive, Embed, GetStatus."""

    def __init__(self, worker_id: str, replicas: Replicas, relay: Relay, engine: Engine, memory_bytes: int) -> None:
        self._worker_id, self._replicas, self._relay, self._engine = worker_id, replicas, relay, engine
        self._memory_bytes = memory_bytes
        self._fence = Fence()

    def mount(self, server: aio.Server) -> None:
        """Adds the service to a server; of two handlers for Receive the first one counts, which parses by hand."""
        receive: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            self.Receive, response_serializer=pb.ReceiveResponse.SerializeToString
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, {"Receive": receive}),))
        add_WorkerServiceServicer_to_server(self, server)

    async def Load(self, request: pb.LoadRequest, context: Context) -> AsyncIterator[pb.LoadResponse]:  # noqa: N802
        """See the proto."""
        self._fence.check(request.fence)
        if not request.model:
            raise InvalidRequest.field("model", "must be set")
        if not is_digest(request.digest):
            raise InvalidRequest.field("digest", "must be a checkpoint's digest")
        if request.base and not is_digest(request.base):
            raise InvalidRequest.field("base", "must be a checkpoint's digest")
        order = Order(
            model=request.model,
            digest=request.digest,
            store_address=request.store_address,
            base=request.base,
            base_model=request.base_model,
            numerics=numerics_wanted(request.numerics, "numerics"),
        )
        async with aclosing(self._replicas.load(order)) as events:
            async for event in events:
                if isinstance(event, LoadProgress):
                    yield pb.LoadResponse(progress=load_progress_to(event))
                else:
                    yield pb.LoadResponse(loaded=pb.Loaded(tier=TIERS[event.tier], bytes=event.bytes))

    async def Unload(self, request: pb.UnloadRequest, context: Context) -> pb.UnloadResponse:  # noqa: N802
        """See the proto."""
        self._fence.check(request.fence)
        await self._replicas.unload(replica_name(request.model, request.digest))
        return pb.UnloadResponse()

    async def Relay(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.RelayRequest], context: Context
    ) -> AsyncIterator[pb.RelayResponse]:
        """See the proto."""
        async with aclosing(self._relay.serve(_commands(request_iterator))) as steps:
            async for frames in steps:
                yield response_to(frames)

    async def Receive(  # type: ignore[override]  # noqa: N802
        self, request_iterator: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[pb.ReceiveResponse]:
        """See the proto."""
        async with aclosing(self._relay.incoming.receive(_parts(request_iterator))) as written:
            async for one in written:
                pipe = pb.Pipe(port=one.offer.port, token=one.offer.token) if one.offer else None
                yield pb.ReceiveResponse(written_bytes=one.bytes, pipe=pipe)

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:  # noqa: N802
        """See the proto."""
        pooling = _POOLINGS.get(request.pooling)
        if pooling is None:
            raise InvalidRequest.field("pooling", "must be set")
        if not request.inputs:
            raise InvalidRequest.field("inputs", "must have at least one")
        inputs = [tuple(one.ids) for one in request.inputs]
        vectors = await embed(self._engine, replica_name(request.model, request.digest), inputs, pooling)
        return pb.EmbedResponse(vectors=[pb.Vector(values=vector) for vector in vectors])

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:  # noqa: N802
        """See the proto."""
        facts, stats = self._replicas.facts(), self._engine.stats().replicas
        ready = [(replica, stats.get(replica_name(replica.model, replica.digest))) for replica in facts]
        return pb.GetStatusResponse(
            worker_id=self._worker_id,
            memory_bytes=self._memory_bytes,
            memory_used_bytes=sum(replica.bytes for replica in facts),
            replicas=[
                pb.ReplicaStatus(
                    model=replica.model,
                    digest=replica.digest,
                    running=one.running,
                    waiting=one.waiting,
                    free_blocks=one.free_blocks,
                    total_blocks=one.total_blocks,
                    steps=one.steps,
                    tokens=one.tokens,
                    numerics=NUMERICS[one.numerics],
                    numerics_fingerprint=one.fingerprint,
                    prefix_tokens=one.prefix_tokens,
                    preemptions=one.preemptions,
                    draft_tokens=one.draft_tokens,
                    taken_tokens=one.taken_tokens,
                    runner=runner_to(one.runner),
                )
                for replica, one in ready
                if one
            ],
        )


async def _commands(requests: AsyncIterator[pb.RelayRequest]) -> AsyncIterator[Command]:
    async for request in requests:
        if command := command_from(request):
            yield command
        elif request.WhichOneof("command") == "hello":
            log.info("gateway connected", gateway=request.hello.gateway_id)


async def _parts(messages: AsyncIterator[bytes]) -> AsyncIterator[Part]:
    """Those that we know. Raises DataLoss."""
    async for message in messages:
        if part := part_from(message):
            yield part
