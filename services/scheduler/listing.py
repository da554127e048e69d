"""The requests that the scheduler knows of, as others see them."""

from mesh.requests import RequestState
from policy.books import Books
from services.scheduler.guests import Guest
from services.scheduler.waiting import WaitingRoom


def listing(room: WaitingRoom, books: Books, now: float) -> list[RequestState]:
    """Those that wait or run, the oldest first. Of one whose place another leader gave, the age counts from then."""
    guests = sorted(room.guests.values(), key=lambda guest: guest.since_s)
    there = (one for one in guests if one.number in room.waiting or books.spot_of(one.number))
    return [_state(one, books, now) for one in there]


def _state(guest: Guest, books: Books, now: float) -> RequestState:
    spot, goal = books.spot_of(guest.number), books.moving.goals.get(guest.number)
    return RequestState(
        request_id=guest.request_id,
        model=guest.model,
        worker_id=spot.worker_id if spot else "",
        age_s=now - guest.since_s,
        tenant=guest.tenant,
        to_worker_id=goal.worker_id if goal else "",
    )
