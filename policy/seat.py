"""Where replicas are, and the requests on them."""

from dataclasses import dataclass, field

from mesh.facts import Member, Priority, ReplicaFacts
from policy.spot import Spot


@dataclass(frozen=True, slots=True)
class Seat:
    """A replica where it is. Its spot is its name in the books."""

    member: Member
    replica: ReplicaFacts
    slots: int
    spot: Spot = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spot", Spot(self.member.id, self.replica.model, self.replica.digest))


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
