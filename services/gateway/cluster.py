"""ClusterService on the wire: who is there, what they have and do, and who is to become empty."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from grpc import aio
from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.gateway.v1.gateway_pb2_grpc import ClusterServiceServicer

from mesh.clients.explanation_wire import explanation_to
from mesh.clients.move_wire import move_kind_asked, move_kind_to
from mesh.clients.scheduler import SchedulerClient
from mesh.clients.wire import duration
from mesh.errors import InvalidRequest, Unreachable
from mesh.facts import ClusterFacts
from mesh.moves import Relocated
from mesh.requests import RequestState
from mesh.serve import Ground
from mesh.state.mirror import Mirror
from services.gateway.describe import member_of
from services.gateway.draining import Draining
from services.gateway.watch import EVENT_TYPES, watch

Context = aio.ServicerContext[Any, Any]


class ClusterServicer(ClusterServiceServicer):
    """Get, Watch, Explain, Move, ListRequests, Drain, Undrain."""

    def __init__(self, ground: Ground, mirror: Mirror, schedulers: SchedulerClient) -> None:
        self._ground, self._mirror, self._schedulers = ground, mirror, schedulers
        self._draining = Draining(ground, mirror)

    async def Get(self, request: pb.ClusterServiceGetRequest, context: Context) -> pb.ClusterServiceGetResponse:  # noqa: N802
        """See the proto."""
        members = [message for _, message in sorted(_members(self._mirror.facts).items())]
        return pb.ClusterServiceGetResponse(cluster=pb.Cluster(members=members))

    async def Watch(  # noqa: N802
        self, request: pb.ClusterServiceWatchRequest, context: Context
    ) -> AsyncIterator[pb.ClusterServiceWatchResponse]:
        """See the proto."""
        async for change in watch(self._mirror, _members, self._ground.draining):
            yield pb.ClusterServiceWatchResponse(type=EVENT_TYPES[change.kind], member=change.item)

    async def Explain(  # noqa: N802
        self, request: pb.ClusterServiceExplainRequest, context: Context
    ) -> pb.ClusterServiceExplainResponse:
        """See the proto. The scheduler that leads knows."""
        if not request.model:
            raise InvalidRequest.field("model", "must name a deployed model")
        explanation = await self._schedulers.explain(self._leader(), request.model)
        return pb.ClusterServiceExplainResponse(explanation=explanation_to(explanation))

    async def Move(self, request: pb.ClusterServiceMoveRequest, context: Context) -> pb.ClusterServiceMoveResponse:  # noqa: N802
        """See the proto."""
        if not request.request_id:
            raise InvalidRequest.field("request_id", "must name a running request, as ListRequests shows it")
        kind = move_kind_asked(request.kind)
        done = await self._schedulers.move(self._leader(), request.request_id, request.to_worker_id, kind)
        return _moved(done)

    async def ListRequests(  # noqa: N802
        self, request: pb.ClusterServiceListRequestsRequest, context: Context
    ) -> pb.ClusterServiceListRequestsResponse:
        """See the proto."""
        found = await self._schedulers.requests(self._leader())
        return pb.ClusterServiceListRequestsResponse(requests=map(_request, found))

    async def Drain(  # noqa: N802
        self, request: pb.ClusterServiceDrainRequest, context: Context
    ) -> AsyncIterator[pb.ClusterServiceDrainResponse]:
        """See the proto."""
        async with aclosing(self._draining.drain(request.worker_id, request.node)) as states:
            async for left in states:
                yield pb.ClusterServiceDrainResponse(
                    replicas=left.replicas, requests=left.requests, only_here=left.only_here
                )

    async def Undrain(  # noqa: N802
        self, request: pb.ClusterServiceUndrainRequest, context: Context
    ) -> pb.ClusterServiceUndrainResponse:
        """See the proto."""
        await self._draining.undrain(request.worker_id, request.node)
        return pb.ClusterServiceUndrainResponse()

    def _leader(self) -> str:
        """The address of the scheduler that leads."""
        leader = self._mirror.facts.leader
        if leader is None:
            raise Unreachable("no scheduler leads; start one", reason="NO_SCHEDULER", retry_after_s=1.0)
        return leader.address


def _moved(done: Relocated) -> pb.ClusterServiceMoveResponse:
    outcome = done.outcome
    return pb.ClusterServiceMoveResponse(
        from_worker_id=done.from_worker_id,
        to_worker_id=done.to_worker_id,
        kind=move_kind_to(outcome.kind),
        exact=outcome.exact,
        gap=duration(outcome.gap_s),
        took=duration(outcome.took_s),
        transfer=duration(outcome.transfer_s),
        bytes_sent=outcome.bytes_sent,
    )


def _request(state: RequestState) -> pb.RunningRequest:
    return pb.RunningRequest(
        request_id=state.request_id,
        model=state.model,
        worker_id=state.worker_id,
        age=duration(state.age_s),
        tenant=state.tenant,
        to_worker_id=state.to_worker_id,
    )


def _members(facts: ClusterFacts) -> dict[str, pb.Member]:
    return {name: member_of(member, draining=facts.is_draining(member)) for name, member in facts.members.items()}
