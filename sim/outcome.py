"""What became of each request, and of the cluster. Times are seconds of simulated time."""

from dataclasses import dataclass

from policy.actions import RefusalReason
from sim.request import Request


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request's end: finished, refused, or neither when the simulation ended (`lost`)."""

    request: Request
    start_s: float | None  # when it got a place for the first time
    first_s: float | None  # its first token
    finished_s: float | None
    worker_id: str  # where it ended, or was last
    moves: int
    preemptions: int
    crashes: int  # that it lived through
    refused: RefusalReason | None
    refused_s: float | None = None

    @property
    def latency_s(self) -> float | None:
        """From arrival to the first token or to the refusal: a wait is a wait. None if neither has come."""
        end_s = self.first_s if self.refused is None else self.refused_s
        return None if end_s is None else end_s - self.request.at_s

    @property
    def lost(self) -> bool:
        """Whether nobody has answered it."""
        return self.finished_s is None and self.refused is None


@dataclass(frozen=True, slots=True)
class LoadDone:
    """A load that came to its end, for timelines."""

    worker_id: str
    model: str
    began_s: float
    ready_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """A whole simulation. Requests are in order of arrival."""

    policy: str
    outcomes: tuple[Outcome, ...]
    loads: tuple[LoadDone, ...]
    busy_gpu_s: float  # in which devices computed
    held_gpu_s: float  # in which they held a replica, in whatever state
    simulated_s: float
    events: int
    decisions: int
