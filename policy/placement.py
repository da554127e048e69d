"""Where one waiting request goes: an open slot, a load under way, free memory, memory that idle replicas hold."""

from collections.abc import Iterable
from dataclasses import dataclass

from mesh.facts import Kind, Member, ModelEntry, ReplicaFacts, ReplicaState, WorkerFacts
from policy.actions import Action, Load, Place, RefusalReason, Refuse, Unload, UnloadReason
from policy.estimate import Source, nearest_source, start_up_s
from policy.knobs import Knobs
from policy.view import Spot, View, Waiting


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that the model fits on, and what loading it there would take."""

    member: Member
    worker: WorkerFacts
    source: Source
    estimate_s: float


def place(view: View, request: Waiting, now: float, knobs: Knobs) -> list[Action]:
    """The actions for one request; none means that it waits."""
    entry = view.cluster.models.get(request.model)
    if entry is None:
        return [Refuse(request.request_id, RefusalReason.UNKNOWN_MODEL, None)]
    if slot := _open_slot(view, request, entry):
        return [Place(request.request_id, slot.id)]
    if view.is_loading(entry, request, now):
        return _hold(request, now, knobs)
    return _make_replica(view, request, entry, now, knobs)


def need_bytes(entry: ModelEntry, worker: WorkerFacts) -> int:
    """Device memory that a replica takes: weights and its KV pool."""
    return entry.checkpoint.bytes + worker.kv_bytes


def _open_slot(view: View, request: Waiting, entry: ModelEntry) -> Member | None:
    """The least busy usable replica with a free slot."""
    ready = [
        (view.busy(member.id, replica), member.id, member)
        for member, worker, replica in _replicas(view, request.model)
        if member.id not in request.excluded
        and view.usable(member.id, replica, entry)
        and view.busy(member.id, replica) < worker.slots
    ]
    return min(ready)[2] if ready else None


def _replicas(view: View, model: str) -> Iterable[tuple[Member, WorkerFacts, ReplicaFacts]]:
    for member in view.workers():
        if member.worker and (replica := member.worker.replica(model)):
            yield member, member.worker, replica


def _make_replica(view: View, request: Waiting, entry: ModelEntry, now: float, knobs: Knobs) -> list[Action]:
    workers = view.workers()
    able = [m for m in workers if m.worker is None or need_bytes(entry, m.worker) <= m.worker.memory_bytes]
    if workers and not able:  # a worker that has just joined may yet turn out to be large enough
        return [Refuse(request.request_id, RefusalReason.TOO_LARGE, None)]
    candidates = _candidates(view, request, entry, now, knobs)
    free = [c for c in candidates if _free_bytes(view, c) >= need_bytes(entry, c.worker)]
    if free:
        best = min(free, key=lambda c: (c.estimate_s, -_free_bytes(view, c), c.member.id))
        return [Load(entry.name, entry.checkpoint.digest, best.member.id, best.source.store.id)]
    if able and not candidates and not _any_source(view, entry):
        return [Refuse(request.request_id, RefusalReason.NO_CHECKPOINT, knobs.distrust_s)]
    return _evict_for(view, entry, candidates) or _hold(request, now, knobs)


def _any_source(view: View, entry: ModelEntry) -> bool:
    return nearest_source(view.cluster.of_kind(Kind.STORE), entry.checkpoint.digest, "") is not None


def _candidates(view: View, request: Waiting, entry: ModelEntry, now: float, knobs: Knobs) -> list[Candidate]:
    """Workers that the model fits on and that have no replica of it already."""
    stores, found = view.cluster.of_kind(Kind.STORE), []
    for member in view.workers():
        worker = member.worker
        if worker is None or member.id in request.excluded or worker.replica(entry.name):
            continue
        if view.distrusts(member.id, now) or need_bytes(entry, worker) > worker.memory_bytes:
            continue
        if source := nearest_source(stores, entry.checkpoint.digest, member.node):
            estimate_s = start_up_s(entry.checkpoint.bytes, source, member.node, knobs)
            found.append(Candidate(member, worker, source, estimate_s))
    return found


def _free_bytes(view: View, candidate: Candidate) -> int:
    """Memory left on a worker, what its facts do not show yet of loads under way taken off."""
    worker, coming = candidate.worker, 0
    for spot in view.loading:
        if spot.worker_id == candidate.member.id and (entry := view.cluster.models.get(spot.model)):
            shown = worker.replica(spot.model)  # listed from the first moment, its size known only later
            coming += max(0, need_bytes(entry, worker) - (shown.bytes if shown else 0))
    return worker.memory_bytes - worker.memory_used_bytes - coming


def _evict_for(view: View, entry: ModelEntry, candidates: list[Candidate]) -> list[Action]:
    """Unloads on the worker that needs the fewest. None when nothing helps, or room is already on its way."""
    if any(_free_bytes(view, c) + _leaving_bytes(view, c) >= need_bytes(entry, c.worker) for c in candidates):
        return []
    plans = [(len(plan), c.estimate_s, c.member.id, plan) for c in candidates if (plan := _eviction(view, entry, c))]
    return [*min(plans)[-1]] if plans else []


def _leaving_bytes(view: View, candidate: Candidate) -> int:
    """Memory that unloads under way will give back."""
    return sum(
        replica.bytes
        for replica in candidate.worker.replicas
        if replica.state is ReplicaState.DRAINING or Spot(candidate.member.id, replica.model) in view.unloading
    )


def _eviction(view: View, entry: ModelEntry, candidate: Candidate) -> list[Unload]:
    """Idle replicas to unload here, longest idle first, until the model fits; empty when it never does."""
    missing = need_bytes(entry, candidate.worker) - _free_bytes(view, candidate) - _leaving_bytes(view, candidate)
    chosen: list[ReplicaFacts] = []
    for replica in _longest_idle_first(view, candidate):
        if missing <= 0:
            break
        chosen.append(replica)
        missing -= replica.bytes
    if missing > 0:
        return []
    for replica in chosen[::-1]:  # what a larger one has made needless stays
        if missing + replica.bytes <= 0:
            chosen.remove(replica)
            missing += replica.bytes
    return [Unload(replica.model, candidate.member.id, UnloadReason.EVICTED) for replica in chosen]


def _longest_idle_first(view: View, candidate: Candidate) -> list[ReplicaFacts]:
    worker_id = candidate.member.id
    idle = [replica for replica in candidate.worker.replicas if view.idle(worker_id, replica)]
    return sorted(idle, key=lambda r: (view.idle_since_s.get(Spot(worker_id, r.model), 0.0), r.model))


def _hold(request: Waiting, now: float, knobs: Knobs) -> list[Action]:
    if now >= request.since_s + knobs.hold_s:  # the very moment that decide() looks again
        return [Refuse(request.request_id, RefusalReason.HELD_TOO_LONG, knobs.distrust_s)]
    return []
