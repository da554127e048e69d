"""Emptying workers: what idles there goes. What runs there finishes, for nothing new comes."""

from policy.actions import Unload, UnloadReason
from policy.keepalive import Expiry
from policy.view import Seat, View


def departures(view: View) -> list[Expiry]:
    """One for every idle replica of a worker that is to become empty, a base's adapters before it."""
    if not view.cluster.drains and not any(m.worker and m.worker.stopping for m in view.workers()):
        return []
    leaving = [seat for seat in view.seats() if view.cluster.is_draining(seat.member)]
    idle = [seat for seat in leaving if view.idle(seat) and not view.adapters(seat)]
    return [_departure(view, seat) for seat in sorted(idle, key=lambda seat: seat.spot)]


def _departure(view: View, seat: Seat) -> Expiry:
    """At once; a worker that has just failed is not asked again before its time."""
    return Expiry(Unload(seat.spot, UnloadReason.DRAINED), view.distrusted_until_s.get(seat.member.id, 0.0))
