"""Asking the scheduler for a place."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from whimbrel.scheduler.v1 import scheduler_pb2 as pb
from whimbrel.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub

from mesh.clients.channel import Channels, limit, stream, unary
from mesh.clients.explanation_wire import explanation_from
from mesh.clients.service_wire import service_to
from mesh.clients.wire import duration, progress_from, start_kind_from, start_times_from
from mesh.explanation import Explanation
from mesh.requests import Placement, Progress, Wish


class SchedulerClient:
    """Calls the scheduler that leads, whose address the caller knows from the facts."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def assign(
        self, address: str, wish: Wish, on_end: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[Progress | Placement, None]:
        """Progress while it waits, then one Placement, held until the iteration is closed, or the scheduler ends the
        call: `on_end` is called then, though nobody reads any more."""
        request = pb.AssignRequest(
            request_id=wish.request_id,
            model=wish.model,
            exclude_fences=sorted(wish.excluded),
            current_only=wish.current_only,
            service_class=service_to(wish.service),
            prompt_tokens=wish.prompt_tokens,
            waited=duration(wish.waited_s) if wish.waited_s else None,
            digest=wish.digest,
        )
        call = SchedulerServiceStub(self._channels.to(address)).Assign(request, timeout=limit(None))
        call.add_done_callback(lambda _: on_end())
        async with aclosing(stream(call, f"scheduler at {address}")) as responses:
            async for response in responses:
                if response.WhichOneof("event") == "placement":
                    yield _placement(response.placement)
                else:
                    yield progress_from(response.progress)

    async def explain(self, address: str, model: str) -> Explanation:
        """Why requests for a model are where they are. NotFound for one that is not deployed."""
        call = SchedulerServiceStub(self._channels.to(address)).Explain(pb.ExplainRequest(model=model), timeout=limit())
        return explanation_from((await unary(call, f"scheduler at {address}")).explanation)


def _placement(place: pb.Placement) -> Placement:
    return Placement(
        worker_id=place.worker_id,
        address=place.address,
        fence=place.fence,
        digest=place.digest,
        start_kind=start_kind_from(place.start_kind),
        times=start_times_from(place.times),
    )
