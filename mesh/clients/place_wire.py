"""Places, and that a request is to go on elsewhere, to and from our records."""

from whimbrel.scheduler.v1 import scheduler_pb2 as pb

from mesh.clients.move_wire import move_kind_from, move_kind_to
from mesh.clients.wire import START_KINDS, duration, seconds, start_kind_from, start_times_from, start_times_to
from mesh.moves import Relocation
from mesh.requests import Placement, RequestState


def placement_to(place: Placement) -> pb.Placement:
    """To the wire."""
    return pb.Placement(
        worker_id=place.worker_id,
        address=place.address,
        start_kind=START_KINDS[place.start_kind],
        times=start_times_to(place.times),
        digest=place.digest,
        fence=place.fence,
    )


def placement_from(message: pb.Placement) -> Placement:
    """From the wire."""
    return Placement(
        worker_id=message.worker_id,
        address=message.address,
        fence=message.fence,
        digest=message.digest,
        start_kind=start_kind_from(message.start_kind),
        times=start_times_from(message.times),
    )


def relocation_to(relocation: Relocation) -> pb.Relocation:
    """To the wire."""
    return pb.Relocation(
        move_id=relocation.move_id,
        target=placement_to(relocation.target),
        reason=relocation.reason,
        kind=move_kind_to(relocation.kind),
    )


def relocation_from(message: pb.Relocation) -> Relocation:
    """From the wire."""
    return Relocation(message.move_id, placement_from(message.target), message.reason, move_kind_from(message.kind))


def request_state_to(state: RequestState) -> pb.RequestState:
    """To the wire."""
    return pb.RequestState(
        request_id=state.request_id,
        model=state.model,
        worker_id=state.worker_id,
        age=duration(state.age_s),
        tenant=state.tenant,
        to_worker_id=state.to_worker_id,
    )


def request_state_from(message: pb.RequestState) -> RequestState:
    """From the wire."""
    return RequestState(
        request_id=message.request_id,
        model=message.model,
        worker_id=message.worker_id,
        age_s=seconds(message.age),
        tenant=message.tenant,
        to_worker_id=message.to_worker_id,
    )
