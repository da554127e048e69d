"""The scheduler on the wire."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from grpc import aio
from prometheus_client import Histogram
from whimbrel.scheduler.v1 import scheduler_pb2 as pb
from whimbrel.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceServicer

from mesh.clients.explanation_wire import explanation_to
from mesh.clients.holding import Holding, holding_from
from mesh.clients.move_wire import move_kind_asked, moved_from, moved_to
from mesh.clients.place_wire import placement_to, relocation_to, request_state_to
from mesh.clients.service_wire import service_from
from mesh.clients.wire import progress_to, seconds
from mesh.errors import InvalidRequest, MeshError
from mesh.faults import Point, reach
from mesh.moves import Relocation
from mesh.requests import Placement, Progress, Wish
from services.scheduler.loop import Scheduler
from services.scheduler.waiting import Ticket

Context = aio.ServicerContext[Any, Any]
FINE_MS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
COARSE_MS = (1.25, 1.5, 2, 3, 5, 10, 100, 1000)
BOUNDS_S = [bound_ms / 1e3 for bound_ms in FINE_MS + COARSE_MS]
DISPATCH = Histogram(
    "whimbrel_dispatch_seconds",
    "From a request's arrival to its place, of those that found one at the first look.",
    buckets=BOUNDS_S,
)
DISPATCH_PROCESSOR = Histogram(
    "whimbrel_dispatch_processor_seconds",
    "Processor time of the thread that decides, from the same arrivals to the same places.",
    buckets=BOUNDS_S,
)


class SchedulerServicer(SchedulerServiceServicer):
    """Assign: one stream a request, open for as long as it holds its place. Hold: one a gateway. The rest: a word."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    async def Assign(self, request: pb.AssignRequest, context: Context) -> AsyncIterator[pb.AssignResponse]:  # noqa: N802
        """See the proto."""
        arrived_s, worked_s = time.perf_counter(), time.thread_time()
        if not request.model:
            raise InvalidRequest.field("model", "must name a deployed model")
        self._scheduler.room.check_open()
        await self._scheduler.knows(request.model)
        ticket: Ticket | None = None
        try:
            with self._scheduler.room.ticket(_wish(request)) as ticket:
                self._scheduler.look(ticket)
                while (event := await ticket.events.get()) is not None:
                    if isinstance(event, Relocation):
                        await reach(Point.SCHEDULER_RELOCATES)
                    response = _response(event)
                    if isinstance(event, Placement) and not ticket.held:
                        DISPATCH.observe(time.perf_counter() - arrived_s)
                        DISPATCH_PROCESSOR.observe(time.thread_time() - worked_s)
                    yield response
        finally:
            if ticket is None or self._scheduler.stirs(ticket):
                self._scheduler.wake()

    async def Hold(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.HoldRequest], context: Context
    ) -> AsyncIterator[pb.HoldResponse]:
        """See the proto."""
        async with aclosing(self._scheduler.held.serve(_told(request_iterator))) as noted:
            async for word in noted:
                if word.relocation:
                    await reach(Point.SCHEDULER_RELOCATES)
                relocation = relocation_to(word.relocation) if word.relocation else None
                yield pb.HoldResponse(number=word.number, relocation=relocation)

    async def Moved(self, request: pb.MovedRequest, context: Context) -> pb.MovedResponse:  # noqa: N802
        """See the proto."""
        await reach(Point.SCHEDULER_NOTES)
        self._scheduler.moved(moved_from(request))
        return pb.MovedResponse()

    async def Move(self, request: pb.MoveRequest, context: Context) -> pb.MoveResponse:  # noqa: N802
        """See the proto."""
        if not request.request_id:
            raise InvalidRequest.field("request_id", "must name a running request")
        kind = move_kind_asked(request.kind)
        done = await self._scheduler.move(request.request_id, request.to_worker_id, kind)
        return pb.MoveResponse(
            from_worker_id=done.from_worker_id, to_worker_id=done.to_worker_id, outcome=moved_to(done.outcome)
        )

    async def ListRequests(  # noqa: N802
        self, request: pb.ListRequestsRequest, context: Context
    ) -> pb.ListRequestsResponse:
        """See the proto."""
        return pb.ListRequestsResponse(requests=map(request_state_to, await self._scheduler.requests()))

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:  # noqa: N802
        """See the proto."""
        if not request.model:
            raise InvalidRequest.field("model", "must name a deployed model")
        await self._scheduler.knows(request.model)
        return pb.ExplainResponse(explanation=explanation_to(self._scheduler.explain(request.model)))


def _wish(request: pb.AssignRequest) -> Wish:
    return Wish(
        request_id=request.request_id,
        model=request.model,
        excluded=frozenset(request.exclude_fences),
        current_only=request.current_only,
        service=service_from(request.service_class),
        prompt_tokens=request.prompt_tokens,
        waited_s=seconds(request.waited) if request.HasField("waited") else 0.0,
        digest=request.digest,
        stays=request.stays,
    )


async def _told(requests: AsyncIterator[pb.HoldRequest]) -> AsyncIterator[Holding]:
    async for request in requests:
        yield holding_from(request)


def _response(event: Progress | Placement | Relocation | MeshError) -> pb.AssignResponse:
    if isinstance(event, MeshError):
        raise event
    if isinstance(event, Progress):
        return pb.AssignResponse(progress=progress_to(event))
    if isinstance(event, Relocation):
        return pb.AssignResponse(relocation=relocation_to(event))
    return pb.AssignResponse(placement=placement_to(event))
