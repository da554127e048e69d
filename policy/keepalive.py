"""Which idle replicas have been idle long enough."""

from policy.actions import Unload, UnloadReason
from policy.draft import Draft
from policy.knobs import Knobs
from policy.view import Spot, View


def expire(draft: Draft, now: float, knobs: Knobs) -> list[float]:
    """Unloads those whose time has come, and that no adapter needs. Returns when the next one's comes. A worker that
    could not be reached is not asked at once again."""
    view, rest = draft.view, draft.view.index.rest

    def trusted(spot: Spot) -> bool:
        return not view.distrusts(spot.worker_id, now) and _rests(view, spot)

    common = rest.common.look(now, knobs.keep_alive_s, trusted)
    own = rest.own.look(now, counts=trusted)
    over = rest.over.look(now, counts=trusted)
    reasons = dict.fromkeys((*common.due, *own.due), UnloadReason.IDLE)
    reasons |= dict.fromkeys(over.due, UnloadReason.SUPERSEDED)
    draft.take(Unload(spot, reason) for spot, reason in sorted(reasons.items()))
    moments = [look.next_s for look in (common, own, over) if look.next_s is not None]
    return moments + _after_distrust(view, now, knobs)


def _after_distrust(view: View, now: float, knobs: Knobs) -> list[float]:
    """When the time comes of replicas on workers that are not trusted now."""
    rest, moments = view.index.rest, []
    for worker_id, until_s in view.distrusted_until_s.items():
        for seat in view.replicas.on(worker_id):
            if until_s > now and _rests(view, seat.spot):
                common_s = rest.common.at_s.get(seat.spot, -knobs.keep_alive_s) + knobs.keep_alive_s
                end_s = max(common_s, rest.own.at_s.get(seat.spot, 0.0), rest.over.at_s.get(seat.spot, 0.0))
                moments.append(max(until_s, end_s))
    return moments


def _rests(view: View, spot: Spot) -> bool:
    """Whether it may still be unloaded, after what was decided so far."""
    seat = view.replicas.seat(spot)
    return seat is not None and view.idle(seat) and not view.adapters(seat)
