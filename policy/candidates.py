"""Workers that a version fits on when empty, and what loading it there would take."""

from dataclasses import dataclass

from mesh.facts import Kind, Member, ModelEntry, WorkerFacts
from policy.actions import Load
from policy.estimate import Source, nearest_source, start_up_s
from policy.knobs import Knobs
from policy.size import full_bytes, has_base
from policy.view import NOBODY, Spot, View


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that the current version of a model fits on when empty, and what loading it there would take."""

    member: Member
    worker: WorkerFacts
    source: Source
    estimate_s: float


def candidates(
    view: View, entry: ModelEntry, now: float, knobs: Knobs, excluded: frozenset[int] = NOBODY
) -> list[Candidate]:
    """Workers that could load the current version and have no replica of it already."""
    stores, found, digest = view.cluster.of_kind(Kind.STORE), [], entry.checkpoint.digest
    for member in view.workers():
        worker = member.worker
        if worker is None or member.fence in excluded or worker.replica(entry.name, digest):
            continue
        if view.distrusts(member.id, now) or full_bytes(entry, worker) > worker.memory_bytes:
            continue
        if view.cluster.is_draining(member):
            continue
        if source := nearest_source(stores, digest, member.node):
            one = Candidate(member, worker, source, start_up_s(entry.checkpoint.bytes, source, member.node, knobs))
            found += _with_base(view, entry, one, knobs)
    return found


def any_source(view: View, entry: ModelEntry) -> bool:
    """Whether some store can give the current version, and what it adapts."""
    stores, version = view.cluster.of_kind(Kind.STORE), entry.checkpoint
    return all(nearest_source(stores, digest, "") for digest in (version.digest, version.base) if digest)


def load(view: View, entry: ModelEntry, candidate: Candidate) -> Load:
    """Makes a replica of the current version there. A base that an adapter brings is some model's, if any has it."""
    base = entry.checkpoint.base
    owners = [name for name, other in sorted(view.cluster.models.items()) if base and other.checkpoint.digest == base]
    spot = Spot(candidate.member.id, entry.name, entry.checkpoint.digest)
    return Load(spot, candidate.source.store.id, base, owners[0] if owners else "")


def _with_base(view: View, entry: ModelEntry, alone: Candidate, knobs: Knobs) -> list[Candidate]:
    """The candidate; where an adapter's base would have to come too, from the store that has most of that; none where
    no store has it."""
    version, node = entry.checkpoint, alone.member.node
    if not version.base or has_base(view, entry, alone.member, alone.worker):
        return [alone]
    source = nearest_source(view.cluster.of_kind(Kind.STORE), version.base, node)
    if source is None:
        return []
    estimate_s = alone.estimate_s + start_up_s(version.base_bytes, source, node, knobs)
    return [Candidate(alone.member, alone.worker, source, estimate_s)]
