"""Workers that could load a version, and what loading it there would take."""

import math
from collections.abc import Iterable, Iterator
from typing import Final, final

from mesh.facts import Member, ModelEntry, RunnerKind, WorkerFacts
from policy.ability import Ability
from policy.actions import Load
from policy.estimate import Source
from policy.haul import Haul
from policy.knobs import Knobs
from policy.offers import Offer, Offers
from policy.view import NOBODY, Spot, View

NEAR, FAR = 16, 4  # most workers that are looked at: of nodes with the checkpoint, and those with most room anywhere


@final
class Candidate:
    """A worker that the current version of a model fits on when empty, and what loading it there would take."""

    __slots__ = ("estimate_s", "member", "offer", "worker")

    def __init__(self, member: Member, worker: WorkerFacts, offer: Offer) -> None:
        self.member: Final = member
        self.worker: Final = worker
        self.offer: Final = offer
        self.estimate_s: Final = offer.estimate_s

    @property
    def source(self) -> Source:
        """The store to load from."""
        return self.offer.source

    @property
    def load(self) -> Haul:
        """What has to be brought there."""
        return self.offer.load.to(self.member.id)


def free_candidates(
    view: View, entry: ModelEntry, now: float, offers: Offers, excluded: frozenset[int] = NOBODY
) -> list[Candidate]:
    """Workers with memory free that could load the current version and have no replica of it already: of each node
    where it lies, the one that loads the least and has most free; of all, those that have most free."""
    least_bytes, able = least_need_bytes(view, entry), Ability(view, entry, now, excluded)
    memory, found = view.index.memory, dict.fromkeys(filter(able.has, _with_base(view, entry)))
    for node in view.index.sources.nodes(entry.checkpoint.digest):
        for name in memory.least_loaded(node):
            free_bytes = memory.account(name).free_bytes
            if free_bytes >= least_bytes and able.has(name) and able.need_bytes(name) <= free_bytes:
                found[name] = None
                break
    found |= _first(memory.freest(least_bytes), able)
    return _offered(view, found, offers)


def candidates(
    view: View, entry: ModelEntry, now: float, knobs: Knobs, excluded: frozenset[int] = NOBODY
) -> list[Candidate]:
    """Workers that could load the current version and have no replica of it already: all that have one of another
    version, and of those where idle replicas could make room, the ones with most room of the nodes where it lies, and
    of all."""
    found = _roomy_near(view, entry, now, excluded) | _former_or_roomiest(view, entry, now, excluded)
    return _candidates(view, entry, found, knobs)


def sooner_candidates(
    view: View, entry: ModelEntry, now: float, offers: Offers, before_s: float, *, excluded: frozenset[int] = NOBODY
) -> list[Candidate]:
    """Those of them where it would be ready in less than so long."""
    near = {} if _is_nowhere(view, entry, offers, before_s) else _roomy_near(view, entry, now, excluded)
    found = near | _former_or_roomiest(view, entry, now, excluded)
    return _offered(view, found, offers, before_s)


def candidate_at(view: View, entry: ModelEntry, member: Member, knobs: Knobs) -> Iterator[Candidate]:
    """A worker as a candidate; none where no store has what it would need."""
    yield from _candidates(view, entry, [member.id], knobs)


def near_candidates(view: View, entry: ModelEntry, now: float, knobs: Knobs) -> list[Candidate]:
    """The workers of the nodes where the version lies, whoever uses their memory."""
    near = (name for workers in view.index.near(entry.checkpoint.digest) for name in workers)
    return _candidates(view, entry, filter(Ability(view, entry, now, NOBODY).has, near), knobs)


def sooner_near_candidates(
    view: View, entry: ModelEntry, now: float, offers: Offers, before_s: float
) -> list[Candidate]:
    """Those of them where it would be ready in less than so long, had it room."""
    nodes = view.index.sources.nodes(entry.checkpoint.digest)
    if not entry.checkpoint.base:  # else the base counts, too
        offered = ((node, offers.within(node)) for node in nodes)
        nodes = [node for node, offer in offered if offer and offer.estimate_s < before_s]
    near = (name for node in nodes for name in view.index.of_node(node))
    return _offered(view, filter(Ability(view, entry, now, NOBODY).has, near), offers, before_s)


def used_candidates(view: View, entry: ModelEntry, now: float, knobs: Knobs) -> list[Candidate]:
    """The same, and where they are none, a few workers of other nodes."""
    if near := near_candidates(view, entry, now, knobs):
        return near
    far = _first(view.index.memory.roomiest(0), Ability(view, entry, now, NOBODY))
    return _candidates(view, entry, far, knobs)


def candidates_of(
    view: View, entry: ModelEntry, worker_ids: Iterable[str], now: float, knobs: Knobs
) -> list[Candidate]:
    """Those of some workers that could load it at all, whoever uses their memory."""
    able = Ability(view, entry, now, NOBODY).has
    return _candidates(view, entry, filter(able, dict.fromkeys(worker_ids)), knobs)


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


def load(view: View, entry: ModelEntry, candidate: Candidate, tenant: str = "") -> Load:
    """Makes a replica of the current version there, on a tenant's account. A base that an adapter brings is some
    model's, if any has it."""
    base, models = entry.checkpoint.base, view.cluster.models
    owners = [name for name in view.index.models_of(base) if models[name].checkpoint.digest == base] if base else []
    spot = Spot(candidate.member.id, entry.name, entry.checkpoint.digest)
    store_id = candidate.source.store.id
    return Load(spot, store_id, base, min(owners, default=""), haul=candidate.load, tenant=tenant)


def _roomy_near(view: View, entry: ModelEntry, now: float, excluded: frozenset[int]) -> dict[str, None]:
    """Those with most room of the nodes where a version lies."""
    nodes = view.index.sources.nodes(entry.checkpoint.digest)
    near = view.index.memory.roomiest_of(nodes, least_need_bytes(view, entry))
    return _first(near, Ability(view, entry, now, excluded), NEAR)


def _former_or_roomiest(view: View, entry: ModelEntry, now: float, excluded: frozenset[int]) -> dict[str, None]:
    """Those that have another version, or an adapter's base, and those with most room of all."""
    able = Ability(view, entry, now, excluded)
    former = sorted({seat.spot.worker_id for seat in view.seats(entry.name)})
    there = [name for name in (*former, *_with_base(view, entry)) if able.has(name)]
    return dict.fromkeys(there) | _first(view.index.memory.roomiest(least_need_bytes(view, entry)), able)


def _first(names: Iterable[str], able: Ability, most: int = FAR) -> dict[str, None]:
    """The first few that may get a replica."""
    found = dict[str, None]()
    for name in names:
        if able.has(name):
            found[name] = None
            if len(found) == most:
                break
    return found


def _is_nowhere(view: View, entry: ModelEntry, offers: Offers, before_s: float) -> bool:
    """Whether it cannot be ready in less than so long on any of the nodes where it lies."""
    if entry.checkpoint.base:
        return False
    for node in view.index.sources.nodes(entry.checkpoint.digest):
        offer = offers.within(node)
        if offer and offer.estimate_s < before_s:
            return False
    return True


def _with_base(view: View, entry: ModelEntry) -> list[str]:
    """Workers where an adapter finds its base, or soon will."""
    base, replicas = entry.checkpoint.base, view.replicas
    if not base:
        return []
    names = (*view.index.models_of(base), "")
    there = {seat.spot.worker_id for name in names for seat in replicas.seats(name) if seat.replica.digest == base}
    return sorted(there.union(spot.worker_id for name in names for spot in replicas.loads_of(name)))


def _candidates(view: View, entry: ModelEntry, names: Iterable[str], knobs: Knobs) -> list[Candidate]:
    return _offered(view, names, Offers(view, entry, knobs))


def _offered(view: View, names: Iterable[str], offers: Offers, before_s: float = math.inf) -> list[Candidate]:
    found, workers = [], view.index.workers
    for name in names:
        member = workers[name]
        worker = member.worker
        offer = offers.at(member) if worker else None
        if worker and offer and offer.estimate_s < before_s:
            found.append(Candidate(member, worker, offer))
    return found
