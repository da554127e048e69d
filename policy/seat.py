"""Where replicas are, and the requests on them."""

from dataclasses import dataclass, field

from mesh.facts import Member, Priority, ReplicaFacts, ReplicaState
from policy.spot import Spot


@dataclass(frozen=True, slots=True)
class Seat:
    """A replica where it is. Its spot is its name in the books; what is asked of it all the time is at hand."""

    member: Member
    replica: ReplicaFacts
    slots: int
    spot: Spot = field(repr=False, compare=False)
    is_ready: bool = field(repr=False, compare=False)
    is_loading: bool = field(repr=False, compare=False)
    reported: int = field(repr=False, compare=False)  # requests on it, as it says itself


def seats_of(member: Member) -> list[Seat]:
    """A worker's replicas."""
    worker = member.worker
    return [_seat(member, replica, worker.slots) for replica in worker.replicas] if worker else []


def _seat(member: Member, replica: ReplicaFacts, slots: int) -> Seat:
    spot, state = Spot(member.id, replica.model, replica.digest), replica.state
    is_ready, is_loading = state is ReplicaState.READY, state is ReplicaState.LOADING
    return Seat(member, replica, slots, spot, is_ready, is_loading, replica.running + replica.waiting)


@dataclass(frozen=True, slots=True)
class Running:
    """A request that holds a place. Times are the decider's clock."""

    request_id: str
    placed_s: float
    prompt_tokens: int = 0
    tenant: str = ""
    priority: Priority = Priority.NORMAL
    moved_s: float | None = None  # when it last went to another replica
    stays: bool = False  # it cannot go on elsewhere
