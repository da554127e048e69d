"""Why requests for a model are where they are, in records. Pure; the policy fills them in."""

from dataclasses import dataclass
from enum import StrEnum

from mesh.facts import Tier
from mesh.requests import ServiceClass


class Way(StrEnum):
    """What gets a request to a replica."""

    SLOT = "slot"  # of a replica that is there
    JOIN = "join"  # a load that is under way
    LOAD = "load"  # into free memory
    EVICT = "evict"  # idle replicas, then load
    WAIT = "wait"  # for a slot that is taken
    MOVE = "move"  # what runs there elsewhere, then load


@dataclass(frozen=True, slots=True)
class StartEstimate:
    """Seconds until a first token: the mean is the longer of the queues, and the sum of the other parts."""

    mean_s: float
    p90_s: float
    io_queue_s: float = 0.0
    device_queue_s: float = 0.0
    dram_s: float = 0.0
    disk_s: float = 0.0
    origin_s: float = 0.0
    init_s: float = 0.0
    prefill_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Alternative:
    """How a request could get a first token, or why it cannot this way now. Without an estimate nothing is known."""

    way: Way
    worker_id: str
    node: str
    estimate: StartEstimate | None
    chosen: bool = False
    obstacle: str = ""
    evicts: tuple[str, ...] = ()  # models


@dataclass(frozen=True, slots=True)
class HeldRequest:
    """A request that waits, what is done for it or why nothing is, and what else there is: the quickest first."""

    number: str
    waited_s: float
    service: ServiceClass
    position: int
    why: str
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class PastLoad:
    """What a load was thought to take, and what it took. `tier` is where its farthest bytes came from."""

    worker_id: str
    digest: str
    tier: Tier
    predicted: StartEstimate
    actual_s: float


@dataclass(frozen=True, slots=True)
class LearntRate:
    """Seconds a piece, and the standard deviation of their logarithm from one time to the next."""

    quantity: str
    node: str  # "": the whole cluster
    of: str
    mean_s: float
    spread: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of one model. `held` are the first of those that wait, `next` is a request that comes now."""

    model: str
    held: tuple[HeldRequest, ...]
    waiting: int
    next: HeldRequest
    loads: tuple[PastLoad, ...]
    rates: tuple[LearntRate, ...]
