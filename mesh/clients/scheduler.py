"""Asking the scheduler for a place, and telling it how moves went."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from whimbrel.scheduler.v1 import scheduler_pb2 as pb
from whimbrel.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub

from mesh.clients.channel import Channels, limit, stream, unary
from mesh.clients.explanation_wire import explanation_from
from mesh.clients.move_wire import move_kind_to, moved_from, moved_to
from mesh.clients.place_wire import placement_from, relocation_from, request_state_from
from mesh.clients.service_wire import service_to
from mesh.clients.wire import duration, progress_from
from mesh.explanation import Explanation
from mesh.moves import Moved, Relocated, Relocation
from mesh.requests import MoveKind, Placement, Progress, RequestState, Wish

MOVE_S = 600.0


class SchedulerClient:
    """Calls the scheduler that leads, whose address the caller knows from the facts."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def assign(
        self, address: str, wish: Wish, on_end: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[Progress | Placement | Relocation, None]:
        """Progress while it waits, then one Placement, held until the iteration is closed, or the scheduler ends the
        call: `on_end` is called then, though nobody reads any more. Who does hears of each Relocation."""
        request = pb.AssignRequest(
            request_id=wish.request_id,
            model=wish.model,
            exclude_fences=sorted(wish.excluded),
            current_only=wish.current_only,
            service_class=service_to(wish.service),
            prompt_tokens=wish.prompt_tokens,
            waited=duration(wish.waited_s) if wish.waited_s else None,
            digest=wish.digest,
            stays=wish.stays,
        )
        call = SchedulerServiceStub(self._channels.to(address)).Assign(request, timeout=limit(None))
        call.add_done_callback(lambda _: on_end())
        async with aclosing(stream(call, f"scheduler at {address}")) as responses:
            async for response in responses:
                match response.WhichOneof("event"):
                    case "placement":
                        yield placement_from(response.placement)
                    case "relocation":
                        yield relocation_from(response.relocation)
                    case _:
                        yield progress_from(response.progress)

    async def moved(self, address: str, outcome: Moved) -> None:
        """Tells how a relocation ended; telling it again changes nothing."""
        call = SchedulerServiceStub(self._channels.to(address)).Moved(moved_to(outcome), timeout=limit())
        await unary(call, f"scheduler at {address}")

    async def move(self, address: str, request_id: str, to_worker_id: str, kind: MoveKind | None) -> Relocated:
        """Has a running request go on at another worker, at any if none is named; returns when it does. Raises
        NotFound, Unsuitable, NoRoom, and Unreachable where it could not be done."""
        request = pb.MoveRequest(request_id=request_id, to_worker_id=to_worker_id, kind=move_kind_to(kind))
        call = SchedulerServiceStub(self._channels.to(address)).Move(request, timeout=limit(MOVE_S))
        response = await unary(call, f"scheduler at {address}")
        return Relocated(response.from_worker_id, response.to_worker_id, moved_from(response.outcome))

    async def requests(self, address: str) -> list[RequestState]:
        """Those that wait or run, the oldest first."""
        call = SchedulerServiceStub(self._channels.to(address)).ListRequests(pb.ListRequestsRequest(), timeout=limit())
        return [request_state_from(one) for one in (await unary(call, f"scheduler at {address}")).requests]

    async def explain(self, address: str, model: str) -> Explanation:
        """Why requests for a model are where they are. NotFound for one that is not deployed."""
        call = SchedulerServiceStub(self._channels.to(address)).Explain(pb.ExplainRequest(model=model), timeout=limit())
        return explanation_from((await unary(call, f"scheduler at {address}")).explanation)
