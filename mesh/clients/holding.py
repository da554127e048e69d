"""The line on which a gateway tells a scheduler of places that others gave: its messages, and the gateway's end."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from whimbrel.scheduler.v1 import scheduler_pb2 as pb
from whimbrel.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub

from mesh.clients.channel import Channels, stream
from mesh.clients.outgoing import Outgoing
from mesh.clients.place_wire import relocation_from
from mesh.clients.service_wire import service_from, service_to
from mesh.moves import Relocation
from mesh.requests import HeldPlace


@dataclass(frozen=True, slots=True)
class Holding:
    """What a gateway tells: places that are held, and the numbers of those that no longer are."""

    gateway_id: str  # in the first message alone
    held: tuple[HeldPlace, ...]
    released: tuple[int, ...]


class HoldingClient:
    """The gateway's end. `tell` never waits; `run` carries it until the scheduler ends the line."""

    def __init__(self, channels: Channels, address: str, gateway_id: str, held: Iterable[HeldPlace]) -> None:
        self._stub, self._address = SchedulerServiceStub(channels.to(address)), address
        self._outgoing = Outgoing(pb.HoldRequest(gateway_id=gateway_id, held=map(_place_to, held)))

    def tell(self, held: Sequence[HeldPlace] = (), released: Sequence[int] = ()) -> None:
        """Queues what has changed; it arrives in order."""
        self._outgoing.say(pb.HoldRequest(held=map(_place_to, held), released=released))

    async def run(self, relocate: Callable[[int, Relocation], None] = lambda number, relocation: None) -> None:
        """Returns when the scheduler ends the line; raises the MeshError that broke it. `relocate` is called with the
        number of a place that is to go on elsewhere."""
        call = self._stub.Hold(self._outgoing.messages())
        self._outgoing.end_with(call)
        async with aclosing(stream(call, f"scheduler at {self._address}")) as answers:
            async for answer in answers:
                if answer.HasField("relocation"):
                    relocate(answer.number, relocation_from(answer.relocation))


def holding_from(request: pb.HoldRequest) -> Holding:
    """The scheduler's view of a message."""
    return Holding(request.gateway_id, tuple(map(_place_from, request.held)), tuple(request.released))


def _place_to(place: HeldPlace) -> pb.HeldPlace:
    return pb.HeldPlace(
        number=place.number,
        worker_id=place.worker_id,
        fence=place.fence,
        model=place.model,
        digest=place.digest,
        service_class=service_to(place.service),
        prompt_tokens=place.prompt_tokens,
        request_id=place.request_id,
        stays=place.stays,
    )


def _place_from(place: pb.HeldPlace) -> HeldPlace:
    return HeldPlace(
        number=place.number,
        worker_id=place.worker_id,
        fence=place.fence,
        model=place.model,
        digest=place.digest,
        service=service_from(place.service_class),
        prompt_tokens=place.prompt_tokens,
        request_id=place.request_id,
        stays=place.stays,
    )
