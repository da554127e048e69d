"""Which worker owns an answer now, and the end of that, wherever it is by then."""

from services.gateway.journal import Journal
from services.gateway.owners import Handover
from services.gateway.relay import Line


class Tenure:
    """One answer, from its grant to its end."""

    def __init__(self, journal: Journal, line: Line, handover: Handover | None = None) -> None:
        self.journal, self.line, self.ended = journal, line, False
        self.epoch = line.grant(journal, handover)

    @property
    def over(self) -> bool:
        """Whether nobody owns it any more."""
        return self.ended or self.journal.finish is not None

    def pass_to(self, line: Line, handover: Handover | None = None, move_id: str = "") -> None:
        """Grants it to another line's worker, or again to the same. The former owner is told nothing."""
        former, self.line = self.line, line
        self.epoch = line.grant(self.journal, handover, move_id)
        if former is not line:
            former.forget(self.journal.key)

    def end(self) -> None:
        """Cancels what has not ended at its owner."""
        self.ended = True
        if not self.journal.finish:
            self.line.cancel(self.journal.key, self.epoch)
        self.line.forget(self.journal.key)
        self.journal.heed()
