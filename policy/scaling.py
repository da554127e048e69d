"""How many replicas a model has: never fewer than it is to have, more while one is worth its load, and the first to go
when its others have been enough."""

from collections.abc import Iterable
from dataclasses import replace

from mesh.facts import ModelEntry
from policy.actions import Load, LoadReason, Move, Unload, UnloadReason
from policy.candidates import candidates, free_candidates, load
from policy.draft import Draft
from policy.growth import Growing, line_of
from policy.knobs import Knobs
from policy.offers import Offers
from policy.room import cheapest_eviction, coming_room, soonest
from policy.view import View
from policy.worth import spare


def fill(draft: Draft, now: float, knobs: Knobs) -> list[float]:
    """Loads for models with fewer replicas than they are to have. Returns when time alone may allow more."""
    view, moments = draft.view, list[float]()
    for name in sorted(view.short):
        entry = view.cluster.models[name]
        if view.is_unfit(entry.checkpoint.digest, now):
            moments.append(view.unfit_until_s[entry.checkpoint.digest])
            continue
        while _have(view, entry) < entry.min_replicas:
            if not make(draft, entry, LoadReason.MINIMUM, now, knobs):
                moments += view.distrusted_until_s.values()
                break
    return moments


def spread(draft: Draft, now: float, knobs: Knobs) -> list[float]:
    """More replicas of models whose own have more to do than they should; fewer of those with more than they may."""
    view = draft.view
    for name in sorted(_changed(draft)):
        entry = view.cluster.models.get(name)
        if entry and entry.max_replicas and len(view.up(entry)) > entry.max_replicas:
            _shrink(draft, entry)
        elif entry and not view.is_unfit(entry.checkpoint.digest, now):
            _grow(draft, entry, now, knobs)
    return []


def _changed(draft: Draft) -> Iterable[str]:
    """Models that were touched or are loaded now, and where there is more room, those whose replicas are crowded. As
    long as none leaves, one that was not crowded cannot have become so."""
    view = draft.view
    if view.touched is None:
        return view.cluster.models
    loaded = {spot.model for spot in draft.claims}
    loaded.update(action.spot.model for action in draft.actions if isinstance(action, Load))
    crowded = view.crowded if view.roomier else ()
    if any(isinstance(action, Unload | Move) for action in draft.actions):
        return loaded.union(view.touched, crowded)
    return loaded.union((name for name in view.touched if name in view.crowded or _is_bounded(view, name)), crowded)


def _is_bounded(view: View, name: str) -> bool:
    entry = view.cluster.models.get(name)
    return entry is not None and entry.max_replicas > 0


def make(draft: Draft, entry: ModelEntry, reason: LoadReason, now: float, knobs: Knobs) -> bool:
    """Loads a replica where it starts soonest, or makes room for one. Whether one more is on its way."""
    view, before = draft.view, draft.view.coming(entry)
    if best := soonest(view, entry, free_candidates(view, entry, now, Offers(view, entry, knobs))):
        draft.take([replace(load(view, entry, best), reason=reason)])
        return True
    able = candidates(view, entry, now, knobs)
    if claim := coming_room(view, entry, able):
        draft.claim([claim])
    elif plan := cheapest_eviction(view, entry, able, now, knobs):
        draft.take(plan.unloads)
        draft.claim([plan.claim])
    return view.coming(entry) > before


def is_full(view: View, entry: ModelEntry) -> bool:
    """Whether a model has as many replicas as it may, those on their way included."""
    return entry.max_replicas > 0 and _suffices(entry, _have(view, entry))


def _suffices(entry: ModelEntry, have: int) -> bool:
    return 0 < entry.max_replicas <= have


def _grow(draft: Draft, entry: ModelEntry, now: float, knobs: Knobs) -> None:
    """The first replica is its requests' own matter. Once one is there or on its way, others come beside it."""
    while (have := _have(draft.view, entry)) > 0 and not _suffices(entry, have):
        another = _on_target if entry.target_concurrency else _for_line
        if not another(draft, entry, have, now, knobs):
            return


def _on_target(draft: Draft, entry: ModelEntry, have: int, now: float, knobs: Knobs) -> bool:
    """One more, if more is asked of its replicas than somebody said that they should have at most."""
    view = draft.view
    asked = sum([view.crowd(seat) for seat in view.up(entry)]) + draft.waiting(entry.name)
    return asked > have * entry.target_concurrency and make(draft, entry, LoadReason.SCALE_OUT, now, knobs)


def _for_line(draft: Draft, entry: ModelEntry, have: int, now: float, knobs: Knobs) -> bool:
    """One more, if it pays for those who wait."""
    view, line = draft.view, line_of(draft, entry, have, knobs)
    made = Growing(view, entry, line, now, knobs).best() if line else None
    if made is None:
        return False
    if made.plan:
        draft.take(made.plan.unloads)
        draft.claim([made.plan.claim])
    else:
        draft.take([replace(load(view, entry, made.candidate), reason=LoadReason.SCALE_OUT)])
    return _have(view, entry) > have


def _have(view: View, entry: ModelEntry) -> int:
    return len(view.up(entry)) + view.coming(entry)


def _shrink(draft: Draft, entry: ModelEntry) -> None:
    """Ends a replica beyond those that a model may have, once nothing runs on it."""
    view = draft.view
    least = spare(view.up(entry), view)
    seat = view.replicas.seat(least) if least else None
    if seat and view.idle(seat) and not view.adapters(seat):
        draft.take([Unload(seat.spot, UnloadReason.SCALED_IN)])
