"""A gateway at the edge of the process: real sockets, answers that a test writes down."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from grpc import aio
from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.gateway.v1 import gateway_pb2_grpc as rpc
from whimbrel.inference.v1 import explanation_pb2
from whimbrel.inference.v1 import inference_pb2 as words

from mesh.clients.wire import duration
from mesh.errors import NotFound
from mesh.interceptor import Surround

Answer = Callable[[Any], AsyncIterator[Any]]
CHECKPOINT = words.Checkpoint(
    digest="ab" * 32,
    bytes=3 << 20,
    architecture="LlamaForCausalLM",
    dtype="bfloat16",
    max_context=512,
    units=6,
    tensors=39,
)


def model(name: str = "curlew", **more: Any) -> pb.Model:
    """A model of the catalogue."""
    return pb.Model(name=name, state=pb.MODEL_STATE_COLD, checkpoint=CHECKPOINT, nearest_tier=words.TIER_DISK, **more)


def loading(done: int, total: int) -> words.Progress:
    """A load from disk under way."""
    load = words.LoadProgress(tier=words.TIER_DISK, bytes_done=done, bytes_total=total)
    return words.Progress(phase=words.PHASE_LOADING, load=load)


def finished() -> pb.Finished:
    """Ten tokens from a cold start: 0.4 s to the first, 1.3 s to the last."""
    return pb.Finished(
        finish_reason=words.FINISH_REASON_STOP,
        usage=words.Usage(prompt_tokens=5, completion_tokens=10),
        start_kind=words.START_KIND_DISK,
        times=words.StartTimes(queue=duration(0.05), load=duration(0.25)),
        time_to_first_token=duration(0.4),
        total=duration(1.3),
        worker_id="worker-1",
    )


class FakeGateway(rpc.GenerationServiceServicer, rpc.ModelServiceServicer):
    """Answers Generate and Chat with `answer`; keeps every request; `cancelled` is set when a client lets go."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.models: list[pb.Model] = []
        self.answer: Answer | None = None
        self.chat_error: Exception | None = None
        self.error: Exception | None = None  # what Rollback and Evict end with
        self.stalls = False  # a prefetch stops after its first word
        self.cancelled = asyncio.Event()
        self.page_size = 2
        self.changes: asyncio.Queue[Any] = asyncio.Queue()

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncIterator[pb.GenerateResponse]:  # noqa: N802
        async for event in self._answered(request):
            yield pb.GenerateResponse(**event)

    async def Chat(self, request: pb.ChatRequest, context: Any) -> AsyncIterator[pb.ChatResponse]:  # noqa: N802
        if self.chat_error:
            raise self.chat_error
        async for event in self._answered(request):
            yield pb.ChatResponse(**event)

    async def Import(  # noqa: N802
        self, request: pb.ModelServiceImportRequest, context: Any
    ) -> AsyncIterator[pb.ModelServiceImportResponse]:
        self.requests.append(request)
        progress = words.ImportProgress(phase="writing", bytes_done=1 << 20, bytes_total=3 << 20)
        yield pb.ModelServiceImportResponse(progress=progress)
        yield pb.ModelServiceImportResponse(checkpoint=CHECKPOINT)

    async def Deploy(  # noqa: N802
        self, request: pb.ModelServiceDeployRequest, context: Any
    ) -> AsyncIterator[pb.ModelServiceDeployResponse]:
        self.requests.append(request)
        progress = words.ImportProgress(phase="reading", bytes_done=1 << 20, bytes_total=3 << 20)
        yield pb.ModelServiceDeployResponse(progress=progress)
        yield pb.ModelServiceDeployResponse(model=model(request.name, spec=request.spec))

    async def Update(self, request: pb.ModelServiceUpdateRequest, context: Any) -> pb.ModelServiceUpdateResponse:  # noqa: N802
        self.requests.append(request)
        return pb.ModelServiceUpdateResponse(model=model(request.model.name, previous_checkpoint="cd" * 32))

    async def Rollback(  # noqa: N802
        self, request: pb.ModelServiceRollbackRequest, context: Any
    ) -> pb.ModelServiceRollbackResponse:
        self.requests.append(request)
        if self.error:
            raise self.error
        return pb.ModelServiceRollbackResponse(model=model(request.name, previous_checkpoint="cd" * 32))

    async def Prefetch(  # noqa: N802
        self, request: pb.ModelServicePrefetchRequest, context: Any
    ) -> AsyncIterator[pb.ModelServicePrefetchResponse]:
        self.requests.append(request)
        try:
            for done in (0, 1, 3):
                load = words.LoadProgress(tier=words.TIER_DISK, bytes_done=done << 20, bytes_total=3 << 20)
                yield pb.ModelServicePrefetchResponse(store_id="store-1", progress=load)
                if self.stalls:
                    await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def Evict(self, request: pb.ModelServiceEvictRequest, context: Any) -> pb.ModelServiceEvictResponse:  # noqa: N802
        self.requests.append(request)
        if self.error:
            raise self.error
        return pb.ModelServiceEvictResponse(freed_bytes=3 << 20)

    async def Delete(self, request: pb.ModelServiceDeleteRequest, context: Any) -> pb.ModelServiceDeleteResponse:  # noqa: N802
        self.requests.append(request)
        if request.name not in {held.name for held in self.models}:
            raise NotFound(f"no model {request.name!r}", reason="UNKNOWN_MODEL")
        return pb.ModelServiceDeleteResponse()

    async def Get(self, request: pb.ModelServiceGetRequest, context: Any) -> pb.ModelServiceGetResponse:  # noqa: N802
        for held in self.models:
            if held.name == request.name:
                return pb.ModelServiceGetResponse(model=held)
        raise NotFound(f"no model {request.name!r}", reason="UNKNOWN_MODEL")

    async def List(self, request: pb.ModelServiceListRequest, context: Any) -> pb.ModelServiceListResponse:  # noqa: N802
        start = int(request.page_token or 0)
        end = start + self.page_size
        token = str(end) if end < len(self.models) else ""
        return pb.ModelServiceListResponse(models=self.models[start:end], next_page_token=token)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.requests.append(request)
        try:
            while True:
                yield await self.changes.get()
        finally:
            self.cancelled.set()

    async def _answered(self, request: Any) -> AsyncIterator[dict[str, Any]]:
        self.requests.append(request)
        if self.answer is None:
            raise AssertionError("the test gave no answer")
        try:
            async for event in self.answer(request):
                yield event
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


class FakeCluster(rpc.ClusterServiceServicer):
    """ClusterService has methods of the same names, so it is a servicer of its own."""

    def __init__(self) -> None:
        self.members: list[pb.Member] = []
        self.changes: asyncio.Queue[pb.ClusterServiceWatchResponse] = asyncio.Queue()
        self.explanation = explanation_pb2.Explanation()
        self.requests: list[Any] = []
        self.running: list[pb.RunningRequest] = []

    async def Move(self, request: Any, context: Any) -> pb.ClusterServiceMoveResponse:  # noqa: N802
        self.requests.append(request)
        if request.request_id not in {one.request_id for one in self.running}:
            raise NotFound(f"no request {request.request_id!r} runs", reason="UNKNOWN_REQUEST")
        return pb.ClusterServiceMoveResponse(
            from_worker_id="worker-1",
            to_worker_id=request.to_worker_id or "worker-9",
            kind=request.kind or words.MOVE_KIND_TOKENS,
            exact=True,
            gap=duration(0.02),
            took=duration(0.5),
            bytes_sent=3 << 20,
        )

    async def ListRequests(self, request: Any, context: Any) -> pb.ClusterServiceListRequestsResponse:  # noqa: N802
        return pb.ClusterServiceListRequestsResponse(requests=self.running)

    async def Drain(self, request: Any, context: Any) -> AsyncIterator[pb.ClusterServiceDrainResponse]:  # noqa: N802
        self.requests.append(request)
        yield pb.ClusterServiceDrainResponse(replicas=2, requests=1, only_here=["curlew"])
        yield pb.ClusterServiceDrainResponse()

    async def Undrain(self, request: Any, context: Any) -> pb.ClusterServiceUndrainResponse:  # noqa: N802
        self.requests.append(request)
        return pb.ClusterServiceUndrainResponse()

    async def Get(self, request: Any, context: Any) -> pb.ClusterServiceGetResponse:  # noqa: N802
        return pb.ClusterServiceGetResponse(cluster=pb.Cluster(members=self.members))

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[pb.ClusterServiceWatchResponse]:  # noqa: N802
        while True:
            yield await self.changes.get()

    async def Explain(self, request: Any, context: Any) -> pb.ClusterServiceExplainResponse:  # noqa: N802
        if request.model != self.explanation.model:
            raise NotFound(f"no model {request.model!r}", reason="UNKNOWN_MODEL")
        return pb.ClusterServiceExplainResponse(explanation=self.explanation)


class Fakes:
    """The two servicers, and where they listen."""

    def __init__(self) -> None:
        self.gateway, self.cluster = FakeGateway(), FakeCluster()
        self.address = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Fakes"]:
        """Serves on a free port."""
        server = aio.server(interceptors=[Surround()])
        rpc.add_GenerationServiceServicer_to_server(self.gateway, server)
        rpc.add_ModelServiceServicer_to_server(self.gateway, server)
        rpc.add_ClusterServiceServicer_to_server(self.cluster, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)
