"""Where one waiting request goes: an open slot, a load under way, free memory, memory that idle replicas hold."""

from mesh.facts import ModelEntry
from policy.actions import Action, Place, RefusalReason, Refuse
from policy.candidates import any_source, candidates, load
from policy.knobs import Knobs
from policy.room import cheapest_eviction, room_is_coming, soonest
from policy.size import full_bytes
from policy.succession import succession
from policy.view import Seat, Spot, View, Waiting


def place(view: View, request: Waiting, now: float, knobs: Knobs) -> list[Action]:
    """The actions for one request; none means that it waits."""
    entry = view.cluster.models.get(request.model)
    if entry is None:
        return [Refuse(request.request_id, RefusalReason.UNKNOWN_MODEL, None)]
    current = [s for s in view.seats(entry.name) if s.replica.digest == entry.checkpoint.digest]
    if slot := _open_slot(view, request, current):
        return [Place(request.request_id, slot)]
    former = _former(view, request, entry)
    if former:
        retiring = succession(view, entry, now, knobs).retiring
        if slot := _open_slot(view, request, [seat for seat in former if seat.spot not in retiring]):
            return [Place(request.request_id, slot)]
    doomed = former and view.is_unfit(entry.checkpoint.digest, now)
    if doomed or view.is_loading(entry, now, request.excluded):
        return _hold(view, request, now, knobs)
    return _make_replica(view, request, entry, now, knobs)


def turn_away(view: View, request: Waiting, reason: RefusalReason, retry_after_s: float | None) -> list[Action]:
    """Refuses a request, unless a former version has a slot for it, be it about to make way."""
    entry = view.cluster.models.get(request.model)
    if entry and (slot := _open_slot(view, request, _former(view, request, entry))):
        return [Place(request.request_id, slot)]
    return [Refuse(request.request_id, reason, retry_after_s)]


def _open_slot(view: View, request: Waiting, seats: list[Seat]) -> Spot | None:
    """The least busy of these replicas that is usable and has a free slot."""
    open_ = [
        (view.crowd(seat), seat.spot)
        for seat in seats
        if seat.member.fence not in request.excluded
        and view.settled(seat)
        and view.crowd(seat) < seat.slots
        and not view.cluster.is_draining(seat.member)
    ]
    return min(open_)[1] if open_ else None


def _former(view: View, request: Waiting, entry: ModelEntry) -> list[Seat]:
    """Replicas of former versions that may answer this request."""
    if request.current_only:
        return []
    return [seat for seat in view.former(entry) if seat.member.fence not in request.excluded]


def _make_replica(view: View, request: Waiting, entry: ModelEntry, now: float, knobs: Knobs) -> list[Action]:
    former = _former(view, request, entry)  # whoever may be answered by it waits for its slot, if nothing else helps
    workers = view.workers()
    large = [m for m in workers if m.worker is None or full_bytes(entry, m.worker) <= m.worker.memory_bytes]
    if workers and not large and not former:  # a worker that has just joined may yet turn out to be large enough
        return [Refuse(request.request_id, RefusalReason.TOO_LARGE, None)]
    able = candidates(view, entry, now, knobs, request.excluded)
    if best := soonest(view, entry, able):
        return [load(view, entry, best)]
    if large and not able and not former and not any_source(view, entry):
        return [Refuse(request.request_id, RefusalReason.NO_CHECKPOINT, knobs.distrust_s)]
    if not room_is_coming(view, entry, able) and (unloads := cheapest_eviction(view, entry, able)):
        return [*unloads]
    return _hold(view, request, now, knobs)


def _hold(view: View, request: Waiting, now: float, knobs: Knobs) -> list[Action]:
    if now >= request.since_s + knobs.hold_s:  # the very moment that decide() looks again
        return turn_away(view, request, RefusalReason.HELD_TOO_LONG, knobs.distrust_s)
    return []
