"""Where one waiting request goes: an open slot, a load under way, free memory, memory that idle replicas hold."""

from collections.abc import Collection
from dataclasses import dataclass

from mesh.facts import ModelEntry, RunnerKind
from policy.actions import Action, Place, RefusalReason, Refuse
from policy.candidates import Candidate, any_source, candidates, free_candidates, load
from policy.evacuation import leaves, no_farther
from policy.knobs import Knobs
from policy.making_way import make_way
from policy.nearer import nearer_room
from policy.offers import Offers
from policy.patience import Patience
from policy.retry import retry_after_s
from policy.room import Plan, cheapest_eviction, coming_room, soonest
from policy.scaling import is_full
from policy.slots import is_open
from policy.succession import succession
from policy.view import Seat, Spot, View, Waiting
from policy.worth import is_spare


@dataclass(frozen=True, slots=True)
class Choice:
    """What is done for a request; without actions it waits, and is looked at again at `again_s`, if nothing happens
    before. `claims`: for what room is being made. `patient_since_s`: since when it waits though a load could begin."""

    actions: tuple[Action, ...] = ()
    claims: tuple[Spot, ...] = ()
    again_s: float | None = None
    patient_since_s: float | None = None

    @property
    def ends(self) -> bool:
        """Whether the request waits no more."""
        return any(isinstance(action, Place | Refuse) for action in self.actions)


def place(view: View, request: Waiting, now: float, knobs: Knobs) -> Choice:
    """What is best for one request."""
    entry = view.entry(request.model)
    if request.digest and (entry is None or entry.checkpoint.digest != request.digest):
        return _go_on(view, request, now, knobs)
    if entry is None:
        return refusal(request, RefusalReason.UNKNOWN_MODEL, None)
    current = [s for s in view.seats(entry.name) if s.replica.digest == entry.checkpoint.digest]
    needed = [seat for seat in current if not is_spare(view, seat, now, knobs)]
    if slot := _open_slot(view, request, needed) or _open_slot(view, request, current):
        return Choice((Place(request.request_id, slot),))
    former = _former(view, request, entry)
    if former:
        retiring = succession(view, entry, now, knobs).retiring
        if slot := _open_slot(view, request, [seat for seat in former if seat.spot not in retiring]):
            return Choice((Place(request.request_id, slot),))
    doomed = former and view.is_unfit(entry.checkpoint.digest, now)
    coming = view.is_loading(entry, now, request.excluded) or view.is_claimed(entry, request.excluded)
    if doomed or coming or is_full(view, entry):
        return _hold(view, request, now, knobs)
    return _make_replica(view, request, entry, now, knobs)


def turn_away(view: View, request: Waiting, reason: RefusalReason, now: float, knobs: Knobs) -> Choice:
    """Refuses a request, unless a former version has a slot for it, be it about to make way. It may come again when a
    place can be expected."""
    entry = view.entry(request.model)
    if entry and (slot := _open_slot(view, request, _former(view, request, entry))):
        return Choice((Place(request.request_id, slot),))
    return refusal(request, reason, retry_after_s(view, request.model, now, knobs))


def refusal(request: Waiting, reason: RefusalReason, retry_after_s: float | None) -> Choice:
    """Turns a request away."""
    return Choice((Refuse(request.request_id, reason, retry_after_s),))


def _open_slot(view: View, request: Waiting, seats: Collection[Seat]) -> Spot | None:
    """The least busy of these replicas that is usable and has a free slot; one that is being left, only if need be."""
    open_ = [(leaves(view, seat.spot), view.crowd(seat), seat.spot) for seat in seats if is_open(view, seat, request)]
    return min(open_)[2] if open_ else None


def _go_on(view: View, request: Waiting, now: float, knobs: Knobs) -> Choice:
    """An answer that has begun with a version which the catalogue has moved on from goes on where that still is, though
    it takes nobody else, or nowhere: it is loaded no more."""
    left = [seat for seat in view.seats(request.model) if seat.replica.digest == request.digest and view.settled(seat)]
    left = [s for s in left if s.member.fence not in request.excluded and not view.cluster.is_draining(s.member)]
    if slot := _open_slot(view, request, left):
        return Choice((Place(request.request_id, slot),))
    return _hold(view, request, now, knobs) if left else refusal(request, RefusalReason.VERSION_GONE, None)


def _former(view: View, request: Waiting, entry: ModelEntry) -> list[Seat]:
    """Replicas of former versions that may answer this request."""
    if request.current_only or request.digest:
        return []
    return [seat for seat in view.former(entry) if seat.member.fence not in request.excluded]


def _make_replica(view: View, request: Waiting, entry: ModelEntry, now: float, knobs: Knobs) -> Choice:
    former = _former(view, request, entry)  # whoever may be answered by it waits for its slot, if nothing else helps
    fits = _fits_somewhere(view, entry)
    if view.index.workers and not fits and not former:
        return refusal(request, RefusalReason.TOO_LARGE, None)
    offers = Offers(view, entry, knobs)
    able = no_farther(view, entry, free_candidates(view, entry, now, offers, request.excluded))
    best = soonest(view, entry, able)
    if best is None:
        able = no_farther(view, entry, candidates(view, entry, now, knobs, request.excluded))
    coming = None if best else coming_room(view, entry, able)
    plan = None if best or coming else cheapest_eviction(view, entry, able, now, knobs)
    there = next((one for one in able if plan and one.member.id == plan.claim.worker_id), best)
    patience = Patience(view, now, knobs, offers)
    if knobs.moves and not request.odd and not coming:
        load_s = there.estimate_s + (0.0 if best else knobs.unload_s) if there else None
        if steps := make_way(patience, entry, able, load_s):
            return Choice(tuple(steps))
    if best:
        near = nearer_room(view, entry, best, now, knobs, offers=offers, excluded=request.excluded)
        return _evict(near) if near else _load(view, request, best, patience)
    if fits and not able and not former and not any_source(view, entry):
        return refusal(request, RefusalReason.NO_CHECKPOINT, knobs.distrust_s)
    if coming:
        return Choice((), (coming,)) if now < request.since_s + knobs.hold_s else _hold(view, request, now, knobs)
    return _make_room(request, entry, plan, there, patience)


def _load(view: View, request: Waiting, best: Candidate, patience: Patience) -> Choice:
    """Into free memory, unless it is sooner to wait."""
    entry = view.cluster.models[request.model]
    until_s = patience.until_s(entry, request, best)
    return Choice((load(view, entry, best, request.tenant),)) if until_s is None else _wait(patience, request, until_s)


def _make_room(
    request: Waiting, entry: ModelEntry, plan: Plan | None, there: Candidate | None, patience: Patience
) -> Choice:
    """Where idle replicas can leave, unless it is sooner to wait."""
    if plan is None or there is None:
        return _hold(patience.view, request, patience.now, patience.knobs)
    until_s = patience.until_s(entry, request, there)
    return _evict(plan) if until_s is None else _wait(patience, request, until_s)


def _wait(patience: Patience, request: Waiting, until_s: float) -> Choice:
    return Choice(again_s=until_s, patient_since_s=patience.since_s(request))


def _evict(plan: Plan) -> Choice:
    """Has room made, and claims it."""
    return Choice(plan.unloads, (plan.claim,))


def _fits_somewhere(view: View, entry: ModelEntry) -> bool:
    """Whether some worker is large enough; one that has just joined may yet turn out to be."""
    sizes, version = view.index.sizes(), entry.checkpoint
    most_bytes = sizes.memory_bytes if version.runner is RunnerKind.ENCODER else sizes.beside_pool_bytes
    return bool(view.index.nascent) or version.bytes + version.base_bytes <= most_bytes


def _hold(view: View, request: Waiting, now: float, knobs: Knobs) -> Choice:
    if now >= request.since_s + knobs.hold_s:  # the very moment that decide() looks again
        return turn_away(view, request, RefusalReason.HELD_TOO_LONG, now, knobs)
    return Choice()
