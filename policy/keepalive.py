"""Which idle replicas have been idle long enough."""

from dataclasses import dataclass

from policy.actions import Unload, UnloadReason
from policy.knobs import Knobs
from policy.view import Seat, View


@dataclass(frozen=True, slots=True)
class Expiry:
    """When an idle replica should go, and why. `at_s` may be in the past."""

    unload: Unload
    at_s: float


def expiries(view: View, knobs: Knobs) -> list[Expiry]:
    """One for every replica that nothing runs on, and that no adapter needs."""
    return [_expiry(view, seat, knobs) for seat in view.seats() if view.idle(seat) and not view.adapters(seat)]


def _expiry(view: View, seat: Seat, knobs: Knobs) -> Expiry:
    entry = view.cluster.models.get(seat.replica.model)
    since_s = view.idle_since_s.get(seat.spot, 0.0)
    earliest_s = view.distrusted_until_s.get(seat.member.id, since_s)  # one that failed is not asked again at once
    if entry is None or view.is_superseded(seat):
        return Expiry(Unload(seat.spot, UnloadReason.SUPERSEDED), max(since_s, earliest_s))
    keep_s = knobs.keep_alive_s if entry.keep_alive_s is None else entry.keep_alive_s
    return Expiry(Unload(seat.spot, UnloadReason.IDLE), max(since_s + keep_s, earliest_s))
