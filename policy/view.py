"""All that a decision looks at: the cluster's facts, and what the scheduler itself knows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mesh.facts import ClusterFacts, Kind, Member, ModelEntry, ReplicaFacts, ReplicaState


class Spot(NamedTuple):
    """A model on a worker."""

    worker_id: str
    model: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request without a place, oldest first in the view. Times are the decider's clock."""

    request_id: str
    model: str
    since_s: float
    excluded: frozenset[str] = frozenset()  # workers that just failed it


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

    def workers(self) -> tuple[Member, ...]:
        """The live workers."""
        return self.cluster.of_kind(Kind.WORKER)

    def distrusts(self, worker_id: str, now: float) -> bool:
        """Whether a worker could not be reached a moment ago, and should be left alone."""
        return self.distrusted_until_s.get(worker_id, now) > now

    def is_loading(self, entry: ModelEntry, request: Waiting, now: float) -> bool:
        """Whether a replica is on its way to a worker that the request may go to."""
        if any(spot.model == entry.name and spot.worker_id not in request.excluded for spot in self.loading):
            return True
        hopeful = [m for m in self.workers() if m.id not in request.excluded and not self.distrusts(m.id, now)]
        replicas = (m.worker.replica(entry.name) for m in hopeful if m.worker)
        return any(r and r.state is ReplicaState.LOADING and r.digest == entry.checkpoint.digest for r in replicas)

    def busy(self, worker_id: str, replica: ReplicaFacts) -> int:
        """Requests on a replica: what it reports or what was sent there, whichever is more."""
        return max(replica.running + replica.waiting, self.placed.get(Spot(worker_id, replica.model), 0))

    def usable(self, worker_id: str, replica: ReplicaFacts, entry: ModelEntry) -> bool:
        """Whether new requests may go to this replica."""
        return self._settled(worker_id, replica) and replica.digest == entry.checkpoint.digest

    def idle(self, worker_id: str, replica: ReplicaFacts) -> bool:
        """Whether a replica may be unloaded: nothing runs there or was sent there."""
        return self._settled(worker_id, replica) and self.busy(worker_id, replica) == 0

    def _settled(self, worker_id: str, replica: ReplicaFacts) -> bool:
        """Ready, and no command for it under way: facts may be quicker than the answer of the load itself."""
        spot = Spot(worker_id, replica.model)
        return replica.state is ReplicaState.READY and spot not in self.loading and spot not in self.unloading
