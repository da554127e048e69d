"""Device memory: where a version fits, and which idle replicas would have to go for it."""

import math
from dataclasses import dataclass

from mesh.facts import ModelEntry
from policy.actions import Unload, UnloadReason
from policy.beside import beside_s
from policy.candidates import Candidate
from policy.knobs import Knobs
from policy.memory import Account
from policy.size import is_base, need_bytes
from policy.view import Seat, Spot, View
from policy.worth import is_promised, regret_s, worth


@dataclass(frozen=True, slots=True)
class Plan:
    """Replicas to unload on a worker, so that a version finds room there."""

    unloads: tuple[Unload, ...]
    claim: Spot


def soonest(view: View, entry: ModelEntry, able: list[Candidate]) -> Candidate | None:
    """Where it starts soonest without anything being unloaded; None when there is no room anywhere."""
    best, best_free = None, 0
    for one in able:
        free = free_bytes(view, one)
        sooner = best is None or (one.estimate_s, -free, one.member.id) < (best.estimate_s, -best_free, best.member.id)
        if sooner and free >= _need_bytes(view, entry, one):
            best, best_free = one, free
    return best


def coming_room(view: View, entry: ModelEntry, able: list[Candidate]) -> Spot | None:
    """Where unloads under way make room that nobody has claimed, and it starts soonest; None if nowhere."""
    coming = [c for c in able if _account(view, c).coming_bytes >= _need_bytes(view, entry, c)]
    best = min(coming, key=lambda c: (c.estimate_s, c.member.id), default=None)
    return spot_of(entry, best) if best else None


def free_bytes(view: View, candidate: Candidate) -> int:
    """Memory left on a worker, what its facts do not show yet of loads under way taken off."""
    return _account(view, candidate).free_bytes


def spot_of(entry: ModelEntry, candidate: Candidate) -> Spot:
    """Where its replica would be."""
    return Spot(candidate.member.id, entry.name, entry.checkpoint.digest)


def missing_bytes(view: View, entry: ModelEntry, candidate: Candidate) -> int:
    """What has to be unloaded beside what is leaving already, and not for others."""
    return _need_bytes(view, entry, candidate) - _account(view, candidate).coming_bytes


def cheapest_eviction(
    view: View,
    entry: ModelEntry,
    able: list[Candidate],
    now: float,
    knobs: Knobs,
    *,
    spared: frozenset[Spot] = frozenset(),
) -> Plan | None:
    """Unloads of idle replicas on the worker that needs the fewest; of several where it starts equally soon, where
    it costs least: by the loss of what leaves, and beside what runs there. None when nothing helps."""
    plans, latest_s = [], math.inf
    for candidate in sorted(able, key=lambda one: (one.estimate_s, one.member.id)):
        if candidate.estimate_s > latest_s:
            break  # none of the others needs fewer, or is as soon
        if _account(view, candidate).room_bytes < _need_bytes(view, entry, candidate):
            continue
        idle = first_to_leave(view, entry, candidate, now, knobs)
        if spared:
            idle = [seat for seat in idle if not spared & _spots(view, seat)]
        if chosen := just_enough(view, idle, missing_bytes(view, entry, candidate)):
            lost_s = sum([regret_s(view, seat, now, knobs.horizon_s, knobs) for seat in chosen])
            cost_s = lost_s + beside_s(view, entry, candidate, now, knobs)
            plans.append((len(chosen), candidate.estimate_s, cost_s, candidate.member.id, chosen, candidate))
            if len(chosen) == 1 and not cost_s:
                break  # nobody costs less
            latest_s = candidate.estimate_s if len(chosen) == 1 else latest_s
    if not plans:
        return None
    *_, chosen, best = min(plans, key=lambda plan: plan[:4])
    return Plan(tuple(unload(view, seat) for seat in chosen), spot_of(entry, best))


def first_to_leave(view: View, entry: ModelEntry, candidate: Candidate, now: float, knobs: Knobs) -> list[Seat]:
    """The replicas of a worker that nobody uses, but for what the model itself would be put on and what is promised;
    what is worth least comes first, and among equals, what has been idle longest. A base is as idle, and worth as
    much, as the adapters on it."""
    seats = view.replicas.on(candidate.member.id)
    idle = [seat for seat in seats if view.idle(seat) and not is_base(entry, seat.replica)]
    idle = [seat for seat in idle if not any(is_promised(view, one) for one in (seat, *view.adapters(seat)))]

    ranks = list[tuple[float, float, Spot, Seat]]()
    for seat in idle:
        worth_s, since_s = worth(view, seat, now, knobs), view.idle_since_s.get(seat.spot, 0.0)
        for one in view.adapters(seat):
            worth_s = max(worth_s, worth(view, one, now, knobs))
            since_s = max(since_s, view.idle_since_s.get(one.spot, 0.0))
        ranks.append((worth_s, since_s, seat.spot, seat))
    return [seat for *_, seat in sorted(ranks)]


def just_enough(view: View, seats: list[Seat], missing: int) -> list[Seat]:
    """The first of `seats` whose bytes make up for what is missing, a base's adapters before it, without those that
    later, larger ones have made needless; empty when all of them are too little."""
    chosen: list[Seat] = []
    for seat in seats:
        if missing <= 0:
            break
        more = [one for one in (*view.adapters(seat), seat) if one not in chosen]
        chosen += more
        missing -= sum(one.replica.bytes for one in more)
    if missing > 0:
        return []
    for seat in chosen[::-1]:
        needed = any(other.replica.carries(seat.replica) for other in chosen)
        if missing + seat.replica.bytes <= 0 and not needed:
            chosen.remove(seat)
            missing += seat.replica.bytes
    return chosen


def unload(view: View, seat: Seat) -> Unload:
    """Ends an idle replica for the sake of another."""
    entry = view.cluster.models.get(seat.replica.model)
    if entry is None or entry.checkpoint.digest != seat.replica.digest:
        return Unload(seat.spot, UnloadReason.SUPERSEDED)
    surplus = entry.name in view.surplus_since_s
    return Unload(seat.spot, UnloadReason.SCALED_IN if surplus else UnloadReason.EVICTED)


def _need_bytes(view: View, entry: ModelEntry, candidate: Candidate) -> int:
    return need_bytes(view, entry, candidate.member, candidate.worker)


def _spots(view: View, seat: Seat) -> frozenset[Spot]:
    """Of a replica and the adapters on it."""
    return frozenset(one.spot for one in (seat, *view.adapters(seat)))


def _account(view: View, candidate: Candidate) -> Account:
    return view.index.account(candidate.member.id)
