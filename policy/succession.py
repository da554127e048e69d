"""An update under way: the current version comes up beside the former one, or in its place. Until it answers, the
former one does."""

from dataclasses import dataclass

from mesh.facts import ModelEntry
from policy.actions import Load, Unload
from policy.candidates import Candidate, candidates, load
from policy.draft import Draft
from policy.knobs import Knobs
from policy.room import (
    cheapest_eviction,
    coming_room,
    first_to_leave,
    just_enough,
    missing_bytes,
    soonest,
    spot_of,
    unload,
)
from policy.view import Seat, Spot, View


@dataclass(frozen=True, slots=True)
class Succession:
    """The next step of an update. `retiring` take no new requests: their memory is needed, and nothing else helps."""

    actions: tuple[Load | Unload, ...] = ()
    claims: tuple[Spot, ...] = ()
    retiring: frozenset[Spot] = frozenset()


def successions(view: View) -> list[ModelEntry]:
    """The models of which a former version can answer and the current one cannot yet, by name."""
    if not view.index.outdated:
        return []
    entries = (view.cluster.models.get(name) for name in sorted(view.index.outdated))
    return [entry for entry in entries if entry and view.former(entry)]


def succeed(draft: Draft, now: float, knobs: Knobs) -> list[float]:
    """Takes the next step of each update. Returns when time alone may allow another."""
    updates = successions(draft.view)
    for entry in updates:
        step = succession(draft.view, entry, now, knobs)
        draft.take(step.actions)
        draft.claim(step.claims)
    return [*draft.view.distrusted_until_s.values(), *draft.view.unfit_until_s.values()] if updates else []


def succession(view: View, entry: ModelEntry, now: float, knobs: Knobs) -> Succession:
    """Nothing while the current version is on its way. Else it is loaded where there is room; while somebody uses the
    model, other models' idle replicas make room; else a former replica makes way, once what runs on it has finished."""
    if view.is_loading(entry, now) or view.is_claimed(entry) or view.is_unfit(entry.checkpoint.digest, now):
        return Succession()
    able = candidates(view, entry, now, knobs)
    if best := soonest(view, entry, able):
        return Succession((load(view, entry, best),))
    if coming := coming_room(view, entry, able):
        return Succession(claims=(coming,))
    former = frozenset(seat.spot for seat in view.former(entry))
    if _in_use(view, entry) and (evicted := cheapest_eviction(view, entry, able, now, knobs, spared=former)):
        return Succession(evicted.unloads, (evicted.claim,))
    return _retirement(view, entry, able, now, knobs)


def _in_use(view: View, entry: ModelEntry) -> bool:
    return bool(view.queues.of(entry.name)) or any(view.busy(seat) for seat in view.former(entry))


def _retirement(view: View, entry: ModelEntry, able: list[Candidate], now: float, knobs: Knobs) -> Succession:
    """Former replicas of the worker where they are least busy, and what idles beside them if they are not enough."""
    plans = [
        (_busy(view, chosen), c.member.id, chosen, c) for c in able if (chosen := _leavers(view, entry, c, now, knobs))
    ]
    if not plans:
        return Succession()
    _, _, chosen, best = min(plans, key=lambda plan: plan[:2])
    retiring = frozenset(seat.spot for seat in chosen if seat.replica.model == entry.name)
    if not all(view.idle(seat) for seat in chosen):
        return Succession(retiring=retiring)
    return Succession(tuple(unload(view, seat) for seat in chosen), (spot_of(entry, best),), retiring)


def _leavers(view: View, entry: ModelEntry, candidate: Candidate, now: float, knobs: Knobs) -> list[Seat]:
    former = [seat for seat in view.former(entry) if seat.member.id == candidate.member.id]
    former = [seat for seat in former if all(view.idle(one) for one in view.adapters(seat))]  # these hold it
    former.sort(key=lambda seat: (view.busy(seat), seat.spot))
    in_use = _in_use(view, entry)
    idle = first_to_leave(view, entry, candidate, now, knobs) if in_use else []
    others = [seat for seat in idle if seat.replica.model != entry.name]
    chosen = just_enough(view, [*former, *others], missing_bytes(view, entry, candidate))
    return chosen if any(seat.replica.model == entry.name for seat in chosen) else []


def _busy(view: View, seats: list[Seat]) -> int:
    return sum(view.busy(seat) for seat in seats)
