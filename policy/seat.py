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
    spot: Spot = field(init=False, repr=False, compare=False)
    is_ready: bool = field(init=False, repr=False, compare=False)
    is_loading: bool = field(init=False, repr=False, compare=False)
    reported: int = field(init=False, repr=False, compare=False)  # requests on it, as it says itself

    def __post_init__(self) -> None:
        replica, state = self.replica, self.replica.state
        object.__setattr__(self, "spot", Spot(self.member.id, replica.model, replica.digest))
        object.__setattr__(self, "is_ready", state is ReplicaState.READY)
        object.__setattr__(self, "is_loading", state is ReplicaState.LOADING)
        object.__setattr__(self, "reported", replica.running + replica.waiting)


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
