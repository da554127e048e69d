"""All that a decision looks at: the cluster's facts, and what the scheduler itself knows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mesh.facts import ClusterFacts, Kind, Member, ModelEntry, Priority, ReplicaFacts, ReplicaState
from policy.copying import Copying
from policy.rates import Rates
from policy.spot import Spot as Spot  # noqa: PLC0414  most take it from here
from policy.underway import Loads

NOBODY: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request without a place, oldest first in the view. Times are the decider's clock."""

    request_id: str
    model: str
    since_s: float
    excluded: frozenset[int] = NOBODY  # workers that just failed it, by the fences of their leases
    current_only: bool = False  # no former version of the model will do
    tenant: str = ""
    priority: Priority = Priority.NORMAL
    deadline_s: float | None = None  # for the first token, a moment
    prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Seat:
    """A replica where it is."""

    member: Member
    replica: ReplicaFacts
    slots: int

    @property
    def spot(self) -> Spot:
        """Its name in the books."""
        return Spot(self.member.id, self.replica.model, self.replica.digest)


@dataclass(frozen=True, slots=True)
class View:
    """One moment. `loading` and `unloading` are commands under way, whatever the facts show. Never written to."""

    cluster: ClusterFacts
    waiting: tuple[Waiting, ...] = ()
    placed: Mapping[Spot, int] = field(default_factory=dict)  # requests that hold a place
    loading: frozenset[Spot] = frozenset()
    unloading: frozenset[Spot] = frozenset()
    idle_since_s: Mapping[Spot, float] = field(default_factory=dict)
    distrusted_until_s: Mapping[str, float] = field(default_factory=dict)  # by worker
    unfit_until_s: Mapping[str, float] = field(default_factory=dict)  # by checkpoint: it could not be loaded
    retired: frozenset[Spot] = frozenset()  # versions whose successor has answered: they finish, and come back no more
    copying: Copying = field(default_factory=Copying)
    rates: Rates = field(default_factory=Rates)  # learnt
    loads: Loads = field(default_factory=Loads)  # of `loading`, those that were seen to begin, with what they bring

    def workers(self) -> tuple[Member, ...]:
        """The live workers."""
        return self.cluster.of_kind(Kind.WORKER)

    def seats(self, model: str = "") -> Iterator[Seat]:
        """Every replica, of one model or of all."""
        for member in self.workers():
            if member.worker:
                replicas = member.worker.replicas_of(model) if model else member.worker.replicas
                yield from (Seat(member, replica, member.worker.slots) for replica in replicas)

    def distrusts(self, worker_id: str, now: float) -> bool:
        """Whether a worker could not be reached a moment ago, and should be left alone."""
        return self.distrusted_until_s.get(worker_id, now) > now

    def is_unfit(self, digest: str, now: float) -> bool:
        """Whether a checkpoint could not be loaded a moment ago, and should not be tried without need."""
        return self.unfit_until_s.get(digest, now) > now

    def is_loading(self, entry: ModelEntry, now: float, excluded: frozenset[int] = NOBODY) -> bool:
        """Whether a replica of the current version is on its way to a worker that is neither excluded nor draining."""
        digest = entry.checkpoint.digest
        for spot in self.loading:
            if (spot.model, spot.digest) == (entry.name, digest) and self._takes(spot.worker_id, excluded):
                return True
        return any(
            seat.replica.state is ReplicaState.LOADING
            and seat.replica.digest == digest
            and seat.member.fence not in excluded
            and not self.distrusts(seat.member.id, now)
            and not self.cluster.is_draining(seat.member)
            for seat in self.seats(entry.name)
        )

    def busy(self, seat: Seat) -> int:
        """Requests on a replica: what it reports or what was sent there, whichever is more."""
        return max(seat.replica.running + seat.replica.waiting, self.placed.get(seat.spot, 0))

    def adapters(self, seat: Seat) -> list[Seat]:
        """Those on a replica, in whatever state."""
        worker = seat.member.worker
        carried = [r for r in worker.replicas if seat.replica.carries(r)] if worker else []
        return [Seat(seat.member, replica, seat.slots) for replica in carried]

    def crowd(self, seat: Seat) -> int:
        """Requests that share a replica's slots: its own, and those of all adapters on the same weights."""
        worker = seat.member.worker
        bases = [Seat(seat.member, r, seat.slots) for r in worker.replicas if r.carries(seat.replica)] if worker else []
        base = bases[0] if bases else seat
        return sum(self.busy(one) for one in (base, *self.adapters(base)))

    def settled(self, seat: Seat) -> bool:
        """Ready, and no command for it under way: facts may be quicker than the answer of the load itself."""
        spot = seat.spot
        return seat.replica.state is ReplicaState.READY and spot not in self.loading and spot not in self.unloading

    def idle(self, seat: Seat) -> bool:
        """Whether a replica may be unloaded, with the adapters on it: nothing runs there or was sent there."""
        return self.settled(seat) and self.busy(seat) == 0 and all(self.idle(one) for one in self.adapters(seat))

    def answers(self, entry: ModelEntry) -> bool:
        """Whether the current version of a model can answer somewhere."""
        return any(s.replica.digest == entry.checkpoint.digest and self.settled(s) for s in self.seats(entry.name))

    def former(self, entry: ModelEntry) -> list[Seat]:
        """Replicas of versions that the catalogue has moved on from, which answer until the current one does."""
        if self.answers(entry):
            return []
        older = [s for s in self.seats(entry.name) if s.replica.digest != entry.checkpoint.digest]
        return [seat for seat in older if self.settled(seat) and seat.spot not in self.retired]

    def is_superseded(self, seat: Seat) -> bool:
        """Whether nobody will ask for a replica again: its model is gone, or a newer version answers."""
        entry = self.cluster.models.get(seat.replica.model)
        if entry is None:
            return True
        return seat.replica.digest != entry.checkpoint.digest and (seat.spot in self.retired or self.answers(entry))

    def _takes(self, worker_id: str, excluded: frozenset[int]) -> bool:
        member = self.cluster.members.get(f"{Kind.WORKER}/{worker_id}")
        return member is None or (member.fence not in excluded and not self.cluster.is_draining(member))
