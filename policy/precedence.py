"""Which busy replicas make way for a request that finds no memory: those of whom it goes before."""

from policy.actions import Yield
from policy.candidates import Candidate, used_candidates
from policy.knobs import Knobs
from policy.order import band
from policy.room import just_enough, missing_bytes, spot_of
from policy.view import Seat, View, Waiting
from policy.worth import is_promised
from policy.yielding import User

MOST_OF_WORKERS = 8  # one in so many yields at a time, or one


def waits_for_memory(view: View, request: Waiting, now: float, knobs: Knobs) -> bool:
    """Whether others may have to make way for a request: its model is nowhere, and on its way nowhere."""
    entry = view.entry(request.model)
    if not knobs.yields or entry is None or any(map(view.settled, view.seats(request.model))):
        return False
    return not view.is_loading(entry, now) and not view.is_claimed(entry)


def let_yield(view: View, request: Waiting, now: float, knobs: Knobs) -> Yield | None:
    """Replicas of the worker where fewest requests have to end before the request's model finds room. They finish what
    they have; None where it waits for its turn like everybody."""
    if not _may(view, request, now, knobs):
        return None
    entry = view.cluster.models[request.model]
    able = [c for c in used_candidates(view, entry, now, knobs) if c.member.fence not in request.excluded]
    plans = [
        (sum(map(view.busy, seats)), c.estimate_s, c.member.id, seats, c)
        for c in able
        if (seats := just_enough(view, _behind(view, request, c, now, knobs), missing_bytes(view, entry, c)))
    ]
    if not plans:
        return None
    *_, seats, best = min(plans, key=lambda plan: plan[:3])
    return Yield(tuple(seat.spot for seat in seats), spot_of(entry, best))


def goes_before(view: View, request: Waiting, user: User, now: float, knobs: Knobs) -> bool:
    """Whether a request's band is higher than the one that somebody came in; within one band, whether its tenant is far
    behind the other in what both have had."""
    level = band(request, now, knobs)
    if level != user.priority:
        return level > user.priority
    return _ahead_s(view, user.tenant, request.tenant) > knobs.yield_s


def _waits_after(view: View, request: Waiting, model: str, now: float, knobs: Knobs) -> bool:
    """Whether whoever has waited longest for a model would not take its memory back at once."""
    other = next(iter(view.queues.of(model)), request)
    levels = band(request, now, knobs), band(other, now, knobs)
    ahead_s = _ahead_s(view, other.tenant, request.tenant)
    if levels[0] != levels[1] or abs(ahead_s) > knobs.yield_s:
        return (levels[0], ahead_s) > (levels[1], 0.0)
    return other.since_s >= request.since_s


def _ahead_s(view: View, tenant: str, other: str) -> float:
    """By how much a tenant has had more than another, in device-seconds over weight."""
    return view.shares.tag_s(tenant) - view.shares.tag_s(other)


def _may(view: View, request: Waiting, now: float, knobs: Knobs) -> bool:
    """Whether anybody could have to, and not too many do, nor somebody for this model."""
    yielding = view.yielding
    if any(to.model == request.model for to in yielding.to.values()):
        return False
    if len(yielding.to) >= max(1, len(view.index.workers) // MOST_OF_WORKERS):
        return False
    return any(goes_before(view, request, user, now, knobs) for user in yielding.users)


def _behind(view: View, request: Waiting, candidate: Candidate, now: float, knobs: Knobs) -> list[Seat]:
    """Replicas of a worker whose users all come after the request, the least busy first."""
    base = view.cluster.models[request.model].checkpoint.base

    def comes_after(seat: Seat) -> bool:
        if not view.settled(seat) or view.busy(seat) > len(view.running(seat.spot)):
            return False  # nobody knows who uses it
        if is_promised(view, seat) or not _waits_after(view, request, seat.replica.model, now, knobs):
            return False
        users = {User(run.tenant, run.priority) for run in view.running(seat.spot)}
        return all(goes_before(view, request, user, now, knobs) for user in users)

    others = (seat for seat in view.replicas.on(candidate.member.id) if seat.replica.digest != base)
    seats = [seat for seat in others if seat.spot not in view.yielding.to]
    behind = [seat for seat in seats if all(map(comes_after, (seat, *view.adapters(seat))))]
    return sorted(behind, key=lambda seat: (view.busy(seat), seat.spot))
