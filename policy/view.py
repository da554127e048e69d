"""All that a decision looks at: the cluster's facts, and what the scheduler itself knows."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from mesh.facts import ClusterFacts, Kind, Member, ModelEntry
from policy.backlog import Backlog
from policy.copying import Copying
from policy.demand import Demand
from policy.index import Index
from policy.moving import Moving
from policy.queues import NOBODY, Queues, Waiting
from policy.rates import Rates
from policy.replicas import Replicas
from policy.seat import Running, Seat
from policy.shares import Shares
from policy.spot import Spot
from policy.underway import Loads
from policy.yielding import Yielding

__all__ = ["NOBODY", "Running", "Seat", "Spot", "View", "Waiting"]
NO_RUNS: Mapping[str, Running] = {}


@dataclass(frozen=True, slots=True)
class View:
    """One moment, good until the books change. `loading` and `unloading` are commands under way, whatever the facts
    show. `touched` and `roomier` are the models that may fare otherwise than at the moment before, and the workers
    where there may be more room than then; None: any of them. A view that is given no index makes its own."""

    cluster: ClusterFacts
    waiting: Collection[Waiting] = ()  # oldest first
    placed: Mapping[Spot, int] = field(default_factory=dict)  # requests that hold a place
    loading: AbstractSet[Spot] = frozenset()
    unloading: AbstractSet[Spot] = frozenset()
    idle_since_s: Mapping[Spot, float] = field(default_factory=dict)
    distrusted_until_s: Mapping[str, float] = field(default_factory=dict)  # by worker
    unfit_until_s: Mapping[str, float] = field(default_factory=dict)  # by checkpoint: it could not be loaded
    retired: AbstractSet[Spot] = frozenset()  # of versions whose successor has answered: they finish, and that is all
    claims: AbstractSet[Spot] = frozenset()  # versions for which room is being made where they are to be loaded
    runs: Mapping[Spot, Mapping[str, Running]] = field(default_factory=dict)
    where: Mapping[str, Spot] = field(default_factory=dict)  # each of these requests runs
    copying: Copying = field(default_factory=Copying)
    moving: Moving = field(default_factory=Moving)
    rates: Rates = field(default_factory=Rates)  # learnt
    loads: Loads = field(default_factory=Loads)  # of `loading`, those that were seen to begin, with what they bring
    yielding: Yielding = field(default_factory=Yielding)
    shares: Shares = field(default_factory=Shares)  # of the tenants
    fresh: AbstractSet[str] = frozenset()  # requests that no decision has seen yet
    backlog: Backlog = field(default_factory=Backlog)  # of models that are not touched, and may use more room
    demand: Demand = field(default_factory=Demand)
    short: AbstractSet[str] = frozenset()  # models with fewer replicas than they are to have
    crowded: AbstractSet[str] = frozenset()  # models with replicas, for which requests wait nevertheless
    uneven: AbstractSet[str] = frozenset()  # models of which some replica has much more to do than another
    surplus_since_s: Mapping[str, float] = field(default_factory=dict)  # by model: it has more than it needs
    touched: AbstractSet[str] | None = None
    roomier: AbstractSet[str] | None = None
    index: Index = field(default_factory=Index, repr=False, compare=False)
    queues: Queues = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        queues = self.waiting if isinstance(self.waiting, Queues) else Queues(self.waiting)
        object.__setattr__(self, "queues", queues)
        if not self._is_indexed():
            self._make_index()

    @property
    def replicas(self) -> Replicas:
        """Replicas by model and by worker."""
        return self.index.replicas

    def workers(self) -> tuple[Member, ...]:
        """The live workers."""
        return self.cluster.of_kind(Kind.WORKER)

    def entry(self, model: str) -> ModelEntry | None:
        """The catalogue's, if it has the model."""
        return self.index.models.get(model)

    def seats(self, model: str = "") -> Iterator[Seat]:
        """Every replica, of one model or of all."""
        return iter(self.replicas.seats(model)) if model else self.replicas.everywhere()

    def running(self, spot: Spot) -> Collection[Running]:
        """The requests on a replica."""
        return self.runs.get(spot, NO_RUNS).values()

    def distrusts(self, worker_id: str, now: float) -> bool:
        """Whether a worker could not be reached a moment ago, and should be left alone."""
        return self.distrusted_until_s.get(worker_id, now) > now

    def is_unfit(self, digest: str, now: float) -> bool:
        """Whether a checkpoint could not be loaded a moment ago, and should not be tried without need."""
        return self.unfit_until_s.get(digest, now) > now

    def is_loading(self, entry: ModelEntry, now: float, excluded: frozenset[int] = NOBODY) -> bool:
        """Whether a replica of the current version is on its way to a worker that is neither excluded nor draining."""
        digest = entry.checkpoint.digest
        for spot in self.replicas.loads_of(entry.name):
            if spot.digest == digest and self._takes(spot.worker_id, excluded):
                return True
        return any(
            seat.is_loading
            and seat.replica.digest == digest
            and seat.member.fence not in excluded
            and not self.distrusts(seat.member.id, now)
            and seat.spot.worker_id not in self.index.draining()
            for seat in self.replicas.seats(entry.name)
        )

    def is_coming(self, entry: ModelEntry, now: float) -> bool:
        """Whether a replica of the current version is on its way, or room for one is being made."""
        return self.is_loading(entry, now) or self.is_claimed(entry)

    def is_claimed(self, entry: ModelEntry, excluded: frozenset[int] = NOBODY) -> bool:
        """Whether room is being made for the current version on a worker that is not excluded."""
        digest = entry.checkpoint.digest
        ours = [spot for spot in self.index.claims_of(entry.name) if spot.digest == digest]
        leaving = (spot.worker_id for spot in ours if self.index.account(spot.worker_id).leaving_bytes)
        return any(self._takes(worker_id, excluded) for worker_id in leaving)

    def busy(self, seat: Seat) -> int:
        """Requests on a replica: what it reports or what was sent there, whichever is more."""
        return self.replicas.busy(seat)

    def adapters(self, seat: Seat) -> list[Seat]:
        """Those on a replica, in whatever state."""
        return self.replicas.adapters(seat)

    def crowd(self, seat: Seat) -> int:
        """Requests that share a replica's slots: its own, and those of all adapters on the same weights."""
        return self.replicas.crowd(seat)

    def settled(self, seat: Seat) -> bool:
        """Ready, and no command for it under way: facts may be quicker than the answer of the load itself."""
        return self.replicas.settled(seat)

    def idle(self, seat: Seat) -> bool:
        """Whether a replica may be unloaded, with the adapters on it: nothing runs there or was sent there."""
        return self.replicas.idle(seat)

    def answers(self, entry: ModelEntry) -> bool:
        """Whether the current version of a model can answer somewhere."""
        return any(s.replica.digest == entry.checkpoint.digest and self.settled(s) for s in self.seats(entry.name))

    def up(self, entry: ModelEntry) -> list[Seat]:
        """Replicas that answer for the current version of a model, and stay."""
        seats = self.index.replicas.seats(entry.name)
        if not seats:
            return []
        digest, replicas, leaving = entry.checkpoint.digest, self.index.replicas, self.index.draining()
        up = [seat for seat in seats if seat.spot.digest == digest and replicas.settled(seat)]
        return [seat for seat in up if seat.spot.worker_id not in leaving] if leaving else up

    def coming(self, entry: ModelEntry) -> int:
        """How many more are on their way, or have room made for them."""
        name, replicas = entry.name, self.index.replicas
        spots = [*replicas.loads_of(name), *self.index.claims_of(name)]
        spots += [seat.spot for seat in replicas.seats(name) if seat.is_loading]
        digest = entry.checkpoint.digest
        return len({spot for spot in spots if spot.digest == digest}) if spots else 0

    def former(self, entry: ModelEntry) -> list[Seat]:
        """Replicas of versions that the catalogue has moved on from, which answer until the current one does."""
        if entry.name not in self.index.outdated or self.answers(entry):
            return []
        older = [s for s in self.seats(entry.name) if s.replica.digest != entry.checkpoint.digest]
        return [seat for seat in older if self.settled(seat) and seat.spot not in self.retired]

    def is_superseded(self, seat: Seat) -> bool:
        """Whether nobody will ask for a replica again: its model is gone, or a newer version answers."""
        entry = self.entry(seat.replica.model)
        if entry is None:
            return True
        return seat.replica.digest != entry.checkpoint.digest and (seat.spot in self.retired or self.answers(entry))

    def note_rest(self, spots: Iterable[Spot]) -> None:
        """Brings the index up to date on whether replicas rest at these spots."""
        for spot in spots:
            seat = self.replicas.seat(spot)
            if seat and self.idle(seat) and not self.adapters(seat):
                entry = self.entry(spot.model)
                since_s, keep_s = self.idle_since_s.get(spot, 0.0), entry.keep_alive_s if entry else None
                self.index.rest.put(spot, since_s, keep_s, superseded=self.is_superseded(seat))
            else:
                self.index.rest.drop(spot)

    def _takes(self, worker_id: str, excluded: frozenset[int]) -> bool:
        member = self.index.workers.get(worker_id)
        return member is None or (member.fence not in excluded and worker_id not in self.index.draining())

    def _is_indexed(self) -> bool:
        """Whether the index is one of the very same things."""
        index, replicas = self.index, self.index.replicas
        commands = self.loading is replicas.loading and self.unloading is replicas.unloading
        return (
            commands
            and self.cluster is index.cluster
            and self.placed is replicas.placed
            and self.claims is index.claims
        )

    def _make_index(self) -> None:
        """From scratch. What it keeps up to date of the commands are its own copies."""
        index = Index.of(self.cluster, self.placed, self.loading, self.unloading, self.claims)
        own = {
            "index": index,
            "placed": index.replicas.placed,
            "loading": index.replicas.loading,
            "unloading": index.replicas.unloading,
            "claims": index.claims,
            "where": {request_id: spot for spot, runs in self.runs.items() for request_id in runs},
        }
        for name, value in own.items():
            object.__setattr__(self, name, value)
        self.note_rest([seat.spot for seat in self.seats()])
