"""Which idle replicas go though nobody wants their memory: their time is up, or nobody will ask for them again."""

from policy.actions import Unload, UnloadReason
from policy.draft import Draft
from policy.knobs import Knobs
from policy.timeline import Look
from policy.view import Spot, View
from policy.worth import is_promised

NONE: Look[Spot] = Look([], None)


def expire(draft: Draft, now: float, knobs: Knobs) -> list[float]:
    """Unloads those whose time has come, and that no adapter needs. Returns when the next one's comes. A worker that
    could not be reached is not asked at once again."""
    view, rest = draft.view, draft.view.index.rest

    def trusted(spot: Spot) -> bool:
        return not view.distrusts(spot.worker_id, now) and _rests(view, spot)

    keep_s = knobs.keep_alive_s
    common = NONE if keep_s is None else rest.common.look(now, keep_s, trusted)
    own = rest.own.look(now, counts=trusted)
    over = rest.over.look(now, counts=trusted)
    if common.due or own.due or over.due:
        reasons = dict.fromkeys((*common.due, *own.due), UnloadReason.IDLE)
        reasons |= dict.fromkeys(over.due, UnloadReason.SUPERSEDED)
        draft.take(Unload(spot, reason) for spot, reason in sorted(reasons.items()))
    moments = [look.next_s for look in (common, own, over) if look.next_s is not None]
    return moments + _after_distrust(view, now, knobs) if view.distrusted_until_s else moments


def _after_distrust(view: View, now: float, knobs: Knobs) -> list[float]:
    """When the time comes of replicas on workers that are not trusted now."""
    rest, moments = view.index.rest, []
    for worker_id, until_s in view.distrusted_until_s.items():
        for seat in view.replicas.on(worker_id):
            if until_s > now and _rests(view, seat.spot):
                ends = [rest.own.at_s.get(seat.spot), rest.over.at_s.get(seat.spot)]
                if knobs.keep_alive_s is not None and seat.spot in rest.common.at_s:
                    ends.append(rest.common.at_s[seat.spot] + knobs.keep_alive_s)
                moments += [max(until_s, end_s) for end_s in ends if end_s is not None]
    return moments


def _rests(view: View, spot: Spot) -> bool:
    """Whether it may still be unloaded, after what was decided so far."""
    seat = view.replicas.seat(spot)
    return seat is not None and view.idle(seat) and not view.adapters(seat) and not is_promised(view, seat)
