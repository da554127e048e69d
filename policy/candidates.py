"""Workers that could load a version, and what loading it there would take."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from mesh.facts import Member, ModelEntry, WorkerFacts
from policy.actions import Load
from policy.estimate import Source, haul, mean_s
from policy.haul import Haul
from policy.knobs import Knobs
from policy.size import full_bytes, has_base
from policy.view import NOBODY, Spot, View

FAR = 8  # workers of nodes without the checkpoint that are looked at: those with the most room


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that the current version of a model fits on when empty, and what loading it there would take."""

    member: Member
    worker: WorkerFacts
    source: Source
    load: Haul
    estimate_s: float


def candidates(
    view: View, entry: ModelEntry, now: float, knobs: Knobs, excluded: frozenset[int] = NOBODY
) -> list[Candidate]:
    """Workers that could load the current version and have no replica of it already: all that have one of another
    version, and of those where there is room or idle replicas could make some, all on whose nodes it lies, the ones
    with most memory free, and the ones with most that could be."""

    def able(worker_id: str) -> bool:
        return _is_able(view, entry, worker_id, now, excluded)

    least_bytes = least_need_bytes(entry)
    memory = view.index.memory
    names = {member.id: None for member in view.index.near(entry.checkpoint.digest)}
    names = {name: None for name in names if memory.account(name).room_bytes >= least_bytes}
    names |= {seat.spot.worker_id: None for seat in view.seats(entry.name)}
    found = {name: None for name in names if able(name)}
    for order in (memory.freest(least_bytes), memory.roomiest(least_bytes)):
        found |= dict.fromkeys(islice(filter(able, order), FAR))
    return [one for name in found for one in candidate_at(view, entry, view.index.workers[name], knobs)]


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
    names = [m.id for m in view.index.near(entry.checkpoint.digest) if _is_able(view, entry, m.id, now, NOBODY)]
    return [one for name in names for one in candidate_at(view, entry, view.index.workers[name], knobs)]


def least_need_bytes(entry: ModelEntry) -> int:
    """Memory that a replica takes at least, wherever it comes to be."""
    return entry.checkpoint.bytes


def any_source(view: View, entry: ModelEntry) -> bool:
    """Whether some store can give the current version, and what it adapts."""
    version = entry.checkpoint
    return all(view.index.sources.has(digest) for digest in (version.digest, version.base) if digest)


def load(view: View, entry: ModelEntry, candidate: Candidate) -> Load:
    """Makes a replica of the current version there. A base that an adapter brings is some model's, if any has it."""
    base = entry.checkpoint.base
    owners = [name for name in view.index.models_of(base) if view.cluster.models[name].checkpoint.digest == base]
    spot = Spot(candidate.member.id, entry.name, entry.checkpoint.digest)
    return Load(spot, candidate.source.store.id, base, min(owners, default=""))


def _is_able(view: View, entry: ModelEntry, worker_id: str, now: float, excluded: frozenset[int]) -> bool:
    member = view.index.workers[worker_id]
    if member.worker is None or member.fence in excluded or view.distrusts(worker_id, now):
        return False
    if view.cluster.is_draining(member) or full_bytes(entry, member.worker) > member.worker.memory_bytes:
        return False
    return view.replicas.seat(Spot(worker_id, entry.name, entry.checkpoint.digest)) is None
