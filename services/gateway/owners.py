"""Which workers one answer has run at, one after another, and what a client notices of it."""

import time
from dataclasses import dataclass

from mesh.moves import AnswerMove
from mesh.requests import MoveKind


@dataclass(frozen=True, slots=True)
class Handover:
    """Why and how an answer goes on at its next worker."""

    reason: str
    kind: MoveKind
    exact: bool  # what comes then is, bit for bit, what would have come without it


class Owners:
    """Of the answer `index`. A handover counts once the worker that it was handed to has spoken: one that is lost
    before that, or gives it back, has not had it."""

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.moves: list[AnswerMove] = []
        self.spoke_s = 0.0  # time.monotonic of the newest token; 0 before the first
        self._owner, self._speaker = "", ""  # who was granted it, and whose the newest token is
        self._handover: Handover | None = None

    def granted(self, worker_id: str, handover: Handover | None) -> None:
        """It is this worker's now; without a handover it goes on where it was, or begins."""
        self._owner, self._handover = worker_id, handover

    def spoke(self, tokens: int) -> None:
        """Its owner has added to the answer, which had so many tokens."""
        now_s = time.monotonic()
        if self._handover and self.spoke_s:
            self.moves.append(self._move(self._handover, tokens, now_s - self.spoke_s))
        self._handover = None
        self._speaker, self.spoke_s = self._owner, now_s

    def _move(self, how: Handover, tokens: int, gap_s: float) -> AnswerMove:
        return AnswerMove(
            self.index, self._speaker, self._owner, how.reason, how.kind, tokens, exact=how.exact, gap_s=gap_s
        )
