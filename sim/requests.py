"""The requests of a simulation, from arrival to their one end."""

from collections.abc import Callable
from dataclasses import dataclass

from policy.actions import RefusalReason
from sim.batch import Sequence
from sim.cluster import Impossible
from sim.copying import KvCopy
from sim.nodes import Replica
from sim.outcome import Outcome
from sim.policy import WaitingRequest
from sim.request import Request


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a request runs, and as what."""

    replica: Replica
    sequence: Sequence
    since_s: float


@dataclass(eq=False, slots=True)
class Ongoing:
    """A request that has come and not ended. `seat` is where it runs, `goal` where it is to go on; None: nowhere."""

    number: int  # in order of arrival
    request: Request
    since_s: float  # when it began to wait
    emitted_tokens: int = 0  # before its present seat
    seat: Seat | None = None
    goal: Seat | None = None
    copy: KvCopy | None = None  # of its KV, to the goal; None: that is computed there
    start_s: float | None = None
    first_s: float | None = None
    worker_id: str = ""
    moves: int = 0
    preemptions: int = 0
    crashes: int = 0
    moved_s: float | None = None  # when it last changed its seat
    _shown: WaitingRequest | None = None

    @property
    def id(self) -> str:
        """By which a policy names it."""
        return str(self.number)

    def here(self) -> Seat:
        """Where it runs. Impossible if it does not."""
        if self.seat is None:
            raise Impossible(f"request {self.id} runs nowhere")
        return self.seat

    def sequence(self, emitted_tokens: int, first: Callable[[], None], done: Callable[[], None]) -> Sequence:
        """As a batch sees it."""
        return Sequence(self.id, self.request.prompt_tokens, self.request.answer_tokens, emitted_tokens, first, done)

    def wait(self, emitted_tokens: int, since_s: float) -> None:
        """It has no seat any more, and so many tokens."""
        self.seat, self.emitted_tokens, self.since_s, self._shown = None, emitted_tokens, since_s, None

    def waiting(self) -> WaitingRequest:
        """As a policy sees it: the same object for as long as it waits."""
        if self._shown is None:
            self._shown = self._waiting()
        return self._shown

    def _waiting(self) -> WaitingRequest:
        asked = self.request
        return WaitingRequest(
            id=self.id,
            model=asked.model,
            arrived_s=asked.at_s,
            since_s=self.since_s,
            prompt_tokens=asked.prompt_tokens,
            emitted_tokens=self.emitted_tokens,
            deadline_s=None if asked.deadline_s is None else asked.at_s + asked.deadline_s,
            tenant=asked.tenant,
            priority=asked.priority,
        )

    def outcome(
        self,
        finished_s: float | None = None,
        refused: RefusalReason | None = None,
        refused_s: float | None = None,
    ) -> Outcome:
        """Its end."""
        return Outcome(
            request=self.request,
            start_s=self.start_s,
            first_s=self.first_s,
            finished_s=finished_s,
            worker_id=self.worker_id,
            moves=self.moves,
            preemptions=self.preemptions,
            crashes=self.crashes,
            refused=refused,
            refused_s=refused_s,
        )
