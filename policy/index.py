"""What decisions look up, kept as facts and commands change, so that none of them looks at the whole cluster."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar, final

from mesh.facts import ClusterFacts, Kind, Member, ModelEntry
from policy.memory import Account, Memory
from policy.replicas import Replicas, discard
from policy.rest import Rest
from policy.seat import Seat, seats_of
from policy.size import account
from policy.sources import Sources
from policy.spot import Spot

T = TypeVar("T")
NO_WORKERS: dict[str, Member] = {}
NO_NAMES: frozenset[str] = frozenset()
NO_SPOTS: frozenset[Spot] = frozenset()


@final
class Marks:
    """What has changed since somebody looked."""

    def __init__(self) -> None:
        self.all = False
        self.models: set[str] = set()  # of which any replica, command or request has come or gone
        self.entries: set[str] = set()  # models of which the catalogue says something else
        self.spots: set[Spot] = set()  # where a replica has changed, or is used or left alone
        self.workers: set[str] = set()  # with another account
        self.roomier: set[str] = set()  # those of them where there is more room


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the workers: the most memory of any one, all of it and beside the KV pool that a replica brings; and the
    smallest such pool, and the fewest slots, of any."""

    memory_bytes: int
    beside_pool_bytes: int
    least_pool_bytes: int
    least_slots: int


class Index:
    """Equal facts and equal commands make equal indexes, in whatever order they came."""

    def __init__(self) -> None:
        self.cluster = ClusterFacts()
        self.models = self.cluster.models
        self.marks = Marks()
        self.replicas, self.sources, self._memory = Replicas(), Sources(), Memory()
        self._stale: set[str] = set()  # workers whose accounts are to be made up
        self.workers: dict[str, Member] = {}
        self.nascent: set[str] = set()  # workers that have not said yet what they have
        self.outdated: set[str] = set()  # models with a replica of another version than the current one, or of none
        self.claims: set[Spot] = set()  # versions for which room is being made where they are to be loaded
        self.rest = Rest()
        self._claims_on: dict[str, set[Spot]] = {}
        self._claims_of: dict[str, set[Spot]] = {}
        self._of_node: dict[str, dict[str, Member]] = {}
        self._sizes: Sizes | None = None  # until somebody asks
        self._draining: dict[str, None] | None = None
        self._models_of: dict[str, set[str]] = {}  # by digest, of the version itself and of what it adapts

    @classmethod
    def of(
        cls,
        cluster: ClusterFacts,
        placed: Mapping[Spot, int],
        loading: Iterable[Spot],
        unloading: Iterable[Spot],
        claims: Iterable[Spot],
    ) -> "Index":
        """Made anew."""
        index = cls()
        index.observe(cluster)
        for spot, count in placed.items():
            index.place(spot, count)
        for spots, note in ((loading, index.load), (unloading, index.unload), (claims, index.claim)):
            for spot in spots:
                note(spot)
        return index

    def observe(self, cluster: ClusterFacts) -> None:
        """The facts are these now."""
        before, self.cluster, self.models = self.cluster, cluster, cluster.models
        for name in _changed(before.models, cluster.models, _name):
            self._entry(name, before.models.get(name), cluster.models.get(name))
        for name in _changed(before.members, cluster.members, _key):
            kind, _, member_id = name.partition("/")
            if kind == Kind.WORKER:
                self._worker(member_id, cluster.members.get(name))
            elif kind == Kind.STORE:
                self._store(member_id, before.members.get(name), cluster.members.get(name))
        if before.drains != cluster.drains:
            self.marks.all, self._draining = True, None

    def place(self, spot: Spot, count: int = 1) -> None:
        """Requests get a place there, or give it back: then `count` is negative."""
        seat = self.replicas.seat(spot)
        busy = self.replicas.busy(seat) if seat else 0
        self.replicas.place(spot, count)
        if seat is None:
            return
        if count < 0:
            self._touch_crowd(seat)
        if (busy == 0) != (self.replicas.busy(seat) == 0):
            self.marks.spots.update((spot, self.replicas.base(seat).spot))
            self._stale.add(spot.worker_id)

    def load(self, spot: Spot) -> None:
        """A load begins."""
        self.replicas.load(spot)
        self._command(spot)

    def loaded(self, spot: Spot) -> None:
        """A load has ended, well or not."""
        self.replicas.loaded(spot)
        self._command(spot)

    def unload(self, spot: Spot) -> None:
        """An unload begins."""
        self.replicas.unloading.add(spot)
        self._command(spot)

    def unloaded(self, spot: Spot) -> None:
        """An unload has ended, well or not."""
        self.replicas.unloading.discard(spot)
        self._command(spot)

    def claim(self, spot: Spot) -> None:
        """What leaves this worker's memory is for this version, as far as it needs it."""
        self.claims.add(spot)
        self._claims_on.setdefault(spot.worker_id, set()).add(spot)
        self._claims_of.setdefault(spot.model, set()).add(spot)
        self.marks.models.add(spot.model)
        self._stale.add(spot.worker_id)

    def unclaim(self, spot: Spot) -> None:
        """It is for anybody again."""
        self.claims.discard(spot)
        discard(self._claims_on, spot.worker_id, spot)
        discard(self._claims_of, spot.model, spot)
        self.marks.models.add(spot.model)
        self._stale.add(spot.worker_id)

    def claims_on(self, worker_id: str) -> Collection[Spot]:
        """Versions for which room is being made on a worker."""
        return self._claims_on.get(worker_id, NO_SPOTS)

    def claims_of(self, model: str) -> Collection[Spot]:
        """Where room is being made for a model."""
        return self._claims_of.get(model, NO_SPOTS)

    @property
    def memory(self) -> Memory:
        """The accounts of all workers' memory."""
        if self._stale:
            self.settle()
        return self._memory

    def account(self, worker_id: str) -> Account:
        """Of a worker's memory."""
        return self.memory.account(worker_id)

    def settle(self) -> None:
        """Makes up the accounts of workers where something has changed."""
        for worker_id in self._stale:
            self._make_up(worker_id)
        self._stale.clear()

    def models_of(self, digest: str) -> Collection[str]:
        """Models whose current version is this checkpoint, or adapts it."""
        return self._models_of.get(digest, NO_NAMES)

    def near(self, digest: str) -> list[Collection[str]]:
        """The workers of each node where a checkpoint lies."""
        return [self.of_node(node) for node in self.sources.nodes(digest)]

    def of_node(self, node: str) -> Collection[str]:
        """The workers of a node, by name."""
        return self._of_node.get(node, NO_WORKERS).keys()

    def draining(self) -> dict[str, None]:
        """The workers that are to become empty. Read only."""
        if self._draining is None:
            leaving = (name for name, member in self.workers.items() if self.cluster.is_draining(member))
            self._draining = dict.fromkeys(leaving)
        return self._draining

    def sizes(self) -> Sizes:
        """Of the workers that have said what they have."""
        if self._sizes is None:
            sizes = [member.worker for member in self.workers.values() if member.worker]
            self._sizes = Sizes(
                memory_bytes=max((size.memory_bytes for size in sizes), default=0),
                beside_pool_bytes=max((size.memory_bytes - size.kv_bytes for size in sizes), default=0),
                least_pool_bytes=min((size.kv_bytes for size in sizes), default=0),
                least_slots=min((size.slots for size in sizes), default=0),
            )
        return self._sizes

    def _entry(self, name: str, old: ModelEntry | None, new: ModelEntry | None) -> None:
        for digest in _digests(old):
            discard(self._models_of, digest, name)
        for digest in _digests(new):
            self._models_of.setdefault(digest, set()).add(name)
        self.marks.models.add(name)
        self.marks.entries.add(name)
        self._date(name)
        coming = [seat.spot for seat in (*self.replicas.seats(name), *self.replicas.seats("")) if seat.is_loading]
        for spot in (*self.replicas.loads_of(name), *coming):  # how much they take is known from the catalogue
            self._stale.add(spot.worker_id)

    def _worker(self, worker_id: str, new: Member | None) -> None:
        old = self.workers.pop(worker_id, None)
        if old:
            del self._of_node[old.node][worker_id]
        changed = self.replicas.put(worker_id, seats_of(new) if new else ())
        self.nascent.discard(worker_id)
        if new:
            self.workers[worker_id] = new
            self._of_node.setdefault(new.node, {})[worker_id] = new
            if new.worker is None:
                self.nascent.add(worker_id)
        for spot in changed:
            self.marks.models.add(spot.model)
            self._date(spot.model)
        self.marks.spots |= changed
        if not _alike(old, new):
            self.marks.all, self._sizes, self._draining = True, None, None
        self._stale.add(worker_id)

    def _store(self, store_id: str, old: Member | None, new: Member | None) -> None:
        for digest in self.sources.put(store_id, new):
            self.marks.models.update(self.models_of(digest))
        self.marks.all |= _asks(old) != _asks(new)

    def _command(self, spot: Spot) -> None:
        """One has begun or ended."""
        self.marks.models.add(spot.model)
        self.marks.spots.add(spot)
        if seat := self.replicas.seat(spot):
            self.marks.spots.add(self.replicas.base(seat).spot)
            self._touch_crowd(seat)
        self._stale.add(spot.worker_id)

    def _touch_crowd(self, seat: Seat) -> None:
        """Those that share its slots."""
        base = self.replicas.base(seat)
        self.marks.models.add(base.spot.model)
        self.marks.models.update(one.spot.model for one in self.replicas.adapters(base))

    def _make_up(self, worker_id: str) -> None:
        member = self.workers.get(worker_id)
        self.marks.workers.add(worker_id)
        if member is None or member.worker is None:
            self._memory.drop(worker_id)
        else:
            made = account(self, member, member.worker, self.claims_on(worker_id))
            if self._memory.put(worker_id, member.node, made, len(self.replicas.loads_on(worker_id))):
                self.marks.roomier.add(worker_id)

    def _date(self, model: str) -> None:
        """Notes whether a model has replicas of another version than the current one."""
        entry = self.models.get(model)
        current = entry.checkpoint.digest if entry else None
        if any(seat.replica.digest != current for seat in self.replicas.seats(model)):
            self.outdated.add(model)
        else:
            self.outdated.discard(model)


def _changed(before: Mapping[str, T], after: Mapping[str, T], key_of: Callable[[T], str]) -> list[str]:
    """The keys whose value is another object. Nearly always the keys are the same, and in the same order: then none
    is looked up, for there are as many as there are members. A value is under one key only, which it knows."""
    if before is after:
        return []
    if len(before) == len(after):
        olds, news = list(before.values()), list(after.values())
        places = [place for place in range(len(news)) if olds[place] is not news[place]]
        changed = [key_of(news[place]) for place in places]
        if changed == [key_of(olds[place]) for place in places]:
            return changed
    gone = [key for key in before if key not in after]
    return gone + [key for key, value in after.items() if before.get(key) is not value]


def _key(member: Member) -> str:
    return f"{member.kind.value}/{member.id}"


def _name(entry: ModelEntry) -> str:
    return entry.name


def _digests(entry: ModelEntry | None) -> set[str]:
    return {entry.checkpoint.digest, entry.checkpoint.base} - {""} if entry else set()


def _alike(one: Member | None, other: Member | None) -> bool:
    """Whether a worker is the same in what says whether a model fits there at all."""
    if one is None or other is None:
        return one is other
    before, after = one.worker, other.worker
    if one.fence != other.fence or one.node != other.node:
        return False
    if before is None or after is None:
        return before is after
    sizes = before.memory_bytes == after.memory_bytes and before.kv_bytes == after.kv_bytes
    return sizes and before.slots == after.slots and before.stopping == after.stopping


def _asks(member: Member | None) -> tuple[bool, bool]:
    """Whether a store has said what it has, and whether it can ask an origin."""
    facts = member.store if member else None
    return facts is not None, bool(facts and facts.origins)
