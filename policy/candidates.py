"""Workers that could load a version, and what loading it there would take."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from mesh.facts import Member, ModelEntry, RunnerKind, WorkerFacts
from policy.actions import Load
from policy.estimate import Source, haul, mean_s
from policy.haul import Haul
from policy.knobs import Knobs
from policy.size import full_bytes, has_base, need_bytes
from policy.view import NOBODY, Spot, View

NEAR, FAR = 16, 4  # most workers that are looked at: of nodes with the checkpoint, and those with most room anywhere


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that the current version of a model fits on when empty, and what loading it there would take."""

    member: Member
    worker: WorkerFacts
    source: Source
    load: Haul
    estimate_s: float


def free_candidates(
    view: View, entry: ModelEntry, now: float, knobs: Knobs, excluded: frozenset[int] = NOBODY
) -> list[Candidate]:
    """Workers with memory free that could load the current version and have no replica of it already: of each node
    where it lies, the one that loads the least and has most free; of all, those that have most free."""
    least_bytes, index = least_need_bytes(view, entry), view.index

    def able(worker_id: str) -> bool:
        return _is_able(view, entry, worker_id, now, excluded)

    def rank(worker_id: str) -> tuple[int, int, str]:
        return len(view.replicas.loads_on(worker_id)), -index.account(worker_id).free_bytes, worker_id

    found = dict.fromkeys(filter(able, _with_base(view, entry)))
    for workers in index.near(entry.checkpoint.digest):
        free = [
            name for name in workers if index.account(name).free_bytes >= _need_bytes(view, entry, name) and able(name)
        ]
        found |= dict.fromkeys([min(free, key=rank)] if free else [])
    found |= dict.fromkeys(islice(filter(able, index.memory.freest(least_bytes)), FAR))
    return _candidates(view, entry, found, knobs)


def candidates(
    view: View, entry: ModelEntry, now: float, knobs: Knobs, excluded: frozenset[int] = NOBODY
) -> list[Candidate]:
    """Workers that could load the current version and have no replica of it already: all that have one of another
    version, and of those where idle replicas could make room, the ones with most room of the nodes where it lies, and
    of all."""
    least_bytes, memory = least_need_bytes(view, entry), view.index.memory

    def able(worker_id: str) -> bool:
        return _is_able(view, entry, worker_id, now, excluded)

    near = {
        name: memory.account(name).room_bytes
        for workers in view.index.near(entry.checkpoint.digest)
        for name in workers
    }
    near = {name: room_bytes for name, room_bytes in near.items() if room_bytes >= least_bytes and able(name)}
    found = dict.fromkeys(sorted(near, key=lambda name: (-near[name], name))[:NEAR])
    former = {seat.spot.worker_id for seat in view.seats(entry.name)}
    found |= dict.fromkeys(filter(able, [*sorted(former), *_with_base(view, entry)]))
    found |= dict.fromkeys(islice(filter(able, memory.roomiest(least_bytes)), FAR))
    return _candidates(view, entry, found, knobs)


def candidate_at(view: View, entry: ModelEntry, member: Member, knobs: Knobs) -> Iterator[Candidate]:
    """A worker as a candidate. Where an adapter's base would have to come too, from the store that has most of that;
    none where no store has it."""
    version, sources = entry.checkpoint, view.index.sources
    source = sources.nearest(version.digest, member.node)
    if member.worker is None or source is None:
        return
    brought = haul(version, source, member)
    if version.base and not has_base(view, entry, member):
        source = sources.nearest(version.base, member.node)
        if source is None:
            return
        base = replace(version, digest=version.base, bytes=version.base_bytes)
        brought = brought.plus(haul(base, source, member))
    estimate_s = mean_s(brought, view.loads.beside(brought), view.rates, knobs)
    yield Candidate(member, member.worker, source, brought, estimate_s)


def near_candidates(view: View, entry: ModelEntry, now: float, knobs: Knobs) -> list[Candidate]:
    """The workers of the nodes where the version lies, whoever uses their memory."""
    near = (name for workers in view.index.near(entry.checkpoint.digest) for name in workers)
    return _candidates(view, entry, [name for name in near if _is_able(view, entry, name, now, NOBODY)], knobs)


def used_candidates(view: View, entry: ModelEntry, now: float, knobs: Knobs) -> list[Candidate]:
    """The same, and where they are none, a few workers of other nodes."""
    if near := near_candidates(view, entry, now, knobs):
        return near
    able = (name for name in view.index.memory.roomiest(0) if _is_able(view, entry, name, now, NOBODY))
    return _candidates(view, entry, list(islice(able, FAR)), knobs)


def least_need_bytes(view: View, entry: ModelEntry) -> int:
    """Memory that a replica takes at least, wherever it comes to be; of an adapter, beside its base."""
    version = entry.checkpoint
    if version.base or version.runner is RunnerKind.ENCODER:
        return version.bytes
    return version.bytes + view.index.sizes().least_pool_bytes


def any_source(view: View, entry: ModelEntry) -> bool:
    """Whether some store can give the current version, and what it adapts."""
    version = entry.checkpoint
    return all(view.index.sources.has(digest) for digest in (version.digest, version.base) if digest)


def load(view: View, entry: ModelEntry, candidate: Candidate) -> Load:
    """Makes a replica of the current version there. A base that an adapter brings is some model's, if any has it."""
    base = entry.checkpoint.base
    owners = [name for name in view.index.models_of(base) if view.cluster.models[name].checkpoint.digest == base]
    spot = Spot(candidate.member.id, entry.name, entry.checkpoint.digest)
    return Load(spot, candidate.source.store.id, base, min(owners, default=""), haul=candidate.load)


def _need_bytes(view: View, entry: ModelEntry, worker_id: str) -> int:
    member = view.index.workers[worker_id]
    return need_bytes(view, entry, member, member.worker) if member.worker else 0


def _is_able(view: View, entry: ModelEntry, worker_id: str, now: float, excluded: frozenset[int]) -> bool:
    member = view.index.workers[worker_id]
    if member.worker is None or member.fence in excluded or view.distrusts(worker_id, now):
        return False
    if view.cluster.is_draining(member) or full_bytes(entry, member.worker) > member.worker.memory_bytes:
        return False
    spot = Spot(worker_id, entry.name, entry.checkpoint.digest)
    return view.replicas.seat(spot) is None and spot not in view.loading


def _with_base(view: View, entry: ModelEntry) -> list[str]:
    """Workers where an adapter finds its base, or soon will."""
    base, replicas = entry.checkpoint.base, view.replicas
    if not base:
        return []
    names = (*view.index.models_of(base), "")
    there = {seat.spot.worker_id for name in names for seat in replicas.seats(name) if seat.replica.digest == base}
    return sorted(there.union(spot.worker_id for name in names for spot in replicas.loads_of(name)))


def _candidates(view: View, entry: ModelEntry, names: Iterable[str], knobs: Knobs) -> list[Candidate]:
    return [one for name in names for one in candidate_at(view, entry, view.index.workers[name], knobs)]
