"""What the answers of a request that moves share: where to, how, and whether they go at all."""

from collections.abc import Callable
from dataclasses import dataclass

from mesh.requests import MoveKind
from services.gateway.relay import Line

FINISHED = "FINISHED"


class Over(Exception):
    """A move cannot go on; `reason` is an ErrorInfo reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


@dataclass(frozen=True, slots=True)
class Way:
    """Where all answers of a request are to go, and how. `exact_at` says whether what a replica of that fingerprint
    says next is what would have come without the move."""

    move_id: str
    target: Line
    address: str
    reason: str
    kind: MoveKind
    exact_at: Callable[[str], bool]
    granted: Callable[[str], None]  # called with that fingerprint when the target owns an answer


class Party:
    """The answers that move together: where one has been granted, the others follow; until then, one that cannot move
    keeps all where they are."""

    def __init__(self) -> None:
        self.granted = False
        self.failure: Over | None = None
        self.wake: list[Callable[[], None]] = []

    def fail(self, over: Over) -> None:
        """One cannot move."""
        self.failure = self.failure or over
        for wake in self.wake:
            wake()
