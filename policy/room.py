"""Device memory: where a version fits, and which idle replicas would have to go for it."""

from dataclasses import dataclass

from mesh.facts import Kind, Member, ModelEntry, ReplicaState, WorkerFacts
from policy.actions import Unload, UnloadReason
from policy.estimate import Source, nearest_source, start_up_s
from policy.knobs import Knobs
from policy.view import NOBODY, Seat, Spot, View


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that the current version of a model fits on when empty, and what loading it there would take."""

    member: Member
    worker: WorkerFacts
    source: Source
    estimate_s: float


def need_bytes(entry: ModelEntry, worker: WorkerFacts) -> int:
    """Device memory that a replica takes: weights and its KV pool."""
    return entry.checkpoint.bytes + worker.kv_bytes


def candidates(
    view: View, entry: ModelEntry, now: float, knobs: Knobs, excluded: frozenset[int] = NOBODY
) -> list[Candidate]:
    """Workers that could load the current version and have no replica of it already."""
    stores, found, digest = view.cluster.of_kind(Kind.STORE), [], entry.checkpoint.digest
    for member in view.workers():
        worker = member.worker
        if worker is None or member.fence in excluded or worker.replica(entry.name, digest):
            continue
        if view.distrusts(member.id, now) or need_bytes(entry, worker) > worker.memory_bytes:
            continue
        if source := nearest_source(stores, digest, member.node):
            estimate_s = start_up_s(entry.checkpoint.bytes, source, member.node, knobs)
            found.append(Candidate(member, worker, source, estimate_s))
    return found


def soonest(view: View, entry: ModelEntry, able: list[Candidate]) -> Candidate | None:
    """Where it starts soonest without anything being unloaded; None when there is no room anywhere."""
    free = [c for c in able if free_bytes(view, c) >= need_bytes(entry, c.worker)]
    return min(free, key=lambda c: (c.estimate_s, -free_bytes(view, c), c.member.id), default=None)


def room_is_coming(view: View, entry: ModelEntry, able: list[Candidate]) -> bool:
    """Whether unloads under way will make the room."""
    return any(free_bytes(view, c) + _leaving_bytes(view, c) >= need_bytes(entry, c.worker) for c in able)


def free_bytes(view: View, candidate: Candidate) -> int:
    """Memory left on a worker, what its facts do not show yet of loads under way taken off."""
    worker, coming = candidate.worker, 0
    for spot in view.loading:
        if spot.worker_id == candidate.member.id:
            shown = worker.replica(spot.model, spot.digest)  # from the first moment, its size known only later
            coming += max(0, _size_bytes(view, spot, worker) - (shown.bytes if shown else 0))
    return worker.memory_bytes - worker.memory_used_bytes - coming


def missing_bytes(view: View, entry: ModelEntry, candidate: Candidate) -> int:
    """What has to be unloaded beside what is leaving already."""
    return need_bytes(entry, candidate.worker) - free_bytes(view, candidate) - _leaving_bytes(view, candidate)


def cheapest_eviction(
    view: View, entry: ModelEntry, able: list[Candidate], spared: frozenset[Spot] = frozenset()
) -> list[Unload]:
    """Unloads of idle replicas on the worker that needs the fewest; empty when nothing helps."""
    plans = []
    for candidate in able:
        idle = [seat for seat in longest_idle_first(view, candidate) if seat.spot not in spared]
        if chosen := just_enough(idle, missing_bytes(view, entry, candidate)):
            plans.append((len(chosen), candidate.estimate_s, candidate.member.id, chosen))
    return [unload(view, seat) for seat in min(plans, key=lambda plan: plan[:3])[3]] if plans else []


def longest_idle_first(view: View, candidate: Candidate) -> list[Seat]:
    """The replicas of a worker that nobody uses."""
    seats = (Seat(candidate.member, replica, candidate.worker.slots) for replica in candidate.worker.replicas)
    idle = [seat for seat in seats if view.idle(seat)]
    return sorted(idle, key=lambda seat: (view.idle_since_s.get(seat.spot, 0.0), seat.spot))


def just_enough(seats: list[Seat], missing: int) -> list[Seat]:
    """The first of `seats` whose bytes make up for what is missing, without those that later, larger ones have made
    needless; empty when all of them are too little."""
    chosen: list[Seat] = []
    for seat in seats:
        if missing <= 0:
            break
        chosen.append(seat)
        missing -= seat.replica.bytes
    if missing > 0:
        return []
    for seat in chosen[::-1]:
        if missing + seat.replica.bytes <= 0:
            chosen.remove(seat)
            missing += seat.replica.bytes
    return chosen


def unload(view: View, seat: Seat) -> Unload:
    """Ends an idle replica for the sake of another."""
    entry = view.cluster.models.get(seat.replica.model)
    current = entry is not None and entry.checkpoint.digest == seat.replica.digest
    return Unload(seat.spot, UnloadReason.EVICTED if current else UnloadReason.SUPERSEDED)


def _size_bytes(view: View, spot: Spot, worker: WorkerFacts) -> int:
    """What a replica on its way will take; nothing is known of a version that the catalogue has forgotten."""
    entry = view.cluster.models.get(spot.model)
    versions = [entry.checkpoint, entry.previous] if entry else []
    return next((v.bytes + worker.kv_bytes for v in versions if v and v.digest == spot.digest), 0)


def _leaving_bytes(view: View, candidate: Candidate) -> int:
    """Memory that unloads under way will give back."""
    return sum(
        replica.bytes
        for replica in candidate.worker.replicas
        if replica.state is ReplicaState.DRAINING
        or Spot(candidate.member.id, replica.model, replica.digest) in view.unloading
    )
