"""From token ids back to text as they come: never half a character, and never a text past a stop."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.gateway.spelling import Speller, Spelling


@dataclass(frozen=True, slots=True)
class Piece:
    """New text, and the stop text that ended the answer, if one did; `tokens` counts those used up to there."""

    text: str
    tokens: int
    stop: str | None = None


class Detokenizer:
    """Feeds on one answer's tokens. Text that may turn out to begin a stop text is held back.

    The prompt's last tokens tell whether the answer's first word has a space before it. Without a spelling (the
    model has no tokenizer) there is no text.
    """

    def __init__(self, spelling: Spelling | None, stops: Iterable[str], prompt: Sequence[int] = ()) -> None:
        self._speller = Speller(spelling, prompt) if spelling else None
        self._stops, self._held = tuple(stops), ""

    def feed(self, tokens: Iterable[int]) -> Piece:
        """The text that these tokens complete."""
        out, used = self._held, 0
        for token in tokens:
            used += 1
            out += self._speller.step(token) if self._speller else ""
            if stop := self._find_stop(out):
                self._held = ""
                return Piece(out[: out.index(stop)], used, stop)
        self._held = self._hold(out)
        return Piece(out[: len(out) - len(self._held)], used)

    def finish(self) -> str:
        """What was held back, when no stop text came of it, and U+FFFD for a character that stays unfinished."""
        held, self._held = self._held, ""
        return held + (self._speller.finish() if self._speller else "")

    def _find_stop(self, text: str) -> str | None:
        """The stop text that comes first."""
        found = [(text.index(stop), -len(stop), stop) for stop in self._stops if stop in text]
        return min(found)[2] if found else None

    def _hold(self, text: str) -> str:
        """The longest end of `text` that a stop text begins with."""
        lengths = (
            n for stop in self._stops for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])
        )
        longest = max(lengths, default=0)
        return text[len(text) - longest :]
