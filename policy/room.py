"""Device memory: where a version fits, and which idle replicas would have to go for it."""

from mesh.facts import ModelEntry, ReplicaState
from policy.actions import Unload, UnloadReason
from policy.candidates import Candidate
from policy.size import is_base, kv_bytes, need_bytes, version_of
from policy.view import Seat, Spot, View


def soonest(view: View, entry: ModelEntry, able: list[Candidate]) -> Candidate | None:
    """Where it starts soonest without anything being unloaded; None when there is no room anywhere."""
    free = [c for c in able if free_bytes(view, c) >= _need_bytes(view, entry, c)]
    return min(free, key=lambda c: (c.estimate_s, -free_bytes(view, c), c.member.id), default=None)


def room_is_coming(view: View, entry: ModelEntry, able: list[Candidate]) -> bool:
    """Whether unloads under way will make the room."""
    return any(free_bytes(view, c) + _leaving_bytes(view, c) >= _need_bytes(view, entry, c) for c in able)


def free_bytes(view: View, candidate: Candidate) -> int:
    """Memory left on a worker, what its facts do not show yet of loads under way taken off."""
    worker, spots = candidate.worker, [spot for spot in view.loading if spot.worker_id == candidate.member.id]
    coming, bases = 0, dict[str, int]()
    for spot in spots:
        version = version_of(view, spot)
        shown = worker.replica(spot.model, spot.digest)  # from the first moment, its size known only later
        if version and version.base:
            bases[version.base] = version.base_bytes + worker.kv_bytes
        size = version.bytes + (0 if version.base else kv_bytes(version, worker)) if version else 0
        coming += max(0, size - (shown.bytes if shown else 0))
    for digest in bases.keys() - {spot.digest for spot in spots}:
        shown_bytes = max((r.bytes for r in worker.replicas if r.digest == digest), default=0)
        coming += max(0, bases[digest] - shown_bytes)
    return worker.memory_bytes - worker.memory_used_bytes - coming


def missing_bytes(view: View, entry: ModelEntry, candidate: Candidate) -> int:
    """What has to be unloaded beside what is leaving already."""
    return _need_bytes(view, entry, candidate) - free_bytes(view, candidate) - _leaving_bytes(view, candidate)


def cheapest_eviction(
    view: View, entry: ModelEntry, able: list[Candidate], spared: frozenset[Spot] = frozenset()
) -> list[Unload]:
    """Unloads of idle replicas on the worker that needs the fewest; empty when nothing helps."""
    plans = []
    for candidate in able:
        idle = [seat for seat in longest_idle_first(view, entry, candidate) if not spared & _spots(view, seat)]
        if chosen := just_enough(view, idle, missing_bytes(view, entry, candidate)):
            plans.append((len(chosen), candidate.estimate_s, candidate.member.id, chosen))
    return [unload(view, seat) for seat in min(plans, key=lambda plan: plan[:3])[3]] if plans else []


def longest_idle_first(view: View, entry: ModelEntry, candidate: Candidate) -> list[Seat]:
    """The replicas of a worker that nobody uses, but for what the model itself would be put on. A base is as idle as
    the adapters on it."""
    seats = (Seat(candidate.member, replica, candidate.worker.slots) for replica in candidate.worker.replicas)
    idle = [seat for seat in seats if view.idle(seat) and not is_base(entry, seat.replica)]

    def since_s(seat: Seat) -> float:
        return max(view.idle_since_s.get(spot, 0.0) for spot in _spots(view, seat))

    return sorted(idle, key=lambda seat: (since_s(seat), seat.spot))


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
    current = entry is not None and entry.checkpoint.digest == seat.replica.digest
    return Unload(seat.spot, UnloadReason.EVICTED if current else UnloadReason.SUPERSEDED)


def _need_bytes(view: View, entry: ModelEntry, candidate: Candidate) -> int:
    return need_bytes(view, entry, candidate.member, candidate.worker)


def _spots(view: View, seat: Seat) -> frozenset[Spot]:
    """Of a replica and the adapters on it."""
    return frozenset(one.spot for one in (seat, *view.adapters(seat)))


def _leaving_bytes(view: View, candidate: Candidate) -> int:
    """Memory that unloads under way will give back."""
    return sum(
        replica.bytes
        for replica in candidate.worker.replicas
        if replica.state is ReplicaState.DRAINING
        or Spot(candidate.member.id, replica.model, replica.digest) in view.unloading
    )
