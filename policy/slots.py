"""Replicas that take one more request at once."""

from policy.view import Seat, View, Waiting


def is_open(view: View, seat: Seat, request: Waiting) -> bool:
    """Whether a replica takes this request, of a model and version that it is of: it answers and stays, has a slot,
    yields to nobody, and has not just failed it."""
    return (
        seat.member.fence not in request.excluded
        and view.settled(seat)
        and view.crowd(seat) < seat.slots
        and seat.spot.worker_id not in view.index.draining()
        and seat.spot not in view.yielding.to
    )


def is_ready(view: View, request: Waiting) -> bool:
    """Whether a replica of its model's current version takes it."""
    entry = view.entry(request.model)
    if entry is None:
        return False
    digest = entry.checkpoint.digest
    return any(seat.spot.digest == digest and is_open(view, seat, request) for seat in view.replicas.seats(entry.name))
