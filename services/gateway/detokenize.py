"""From token ids back to text as they come: never half a character, and never a text past a stop."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

PROMPT_TAIL = 8  # tokens; enough for any character's bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """New text, and the stop text that ended the answer, if one did; `tokens` counts those used up to there."""

    text: str
    tokens: int
    stop: str | None = None


class Detokenizer:
    """Feeds on one answer's tokens. Text that may turn out to begin a stop text is held back.

    The prompt's last tokens tell whether the answer's first word has a space before it.
    """

    def __init__(self, tokenizer: Tokenizer | None, stops: Iterable[str], prompt: Sequence[int] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._stream = DecodeStream(ids=list(prompt[-PROMPT_TAIL:]), skip_special_tokens=True)
        self._held = ""

    def feed(self, tokens: Iterable[int]) -> Piece:
        """The text that these tokens complete."""
        out, used = self._held, 0
        for token in tokens:
            used += 1
            out += self._decode(token)
            if stop := self._find_stop(out):
                self._held = ""
                return Piece(out[: out.index(stop)], used, stop)
        self._held = self._hold(out)
        return Piece(out[: len(out) - len(self._held)], used)

    def finish(self) -> str:
        """What was held back, when no stop text came of it."""
        held, self._held = self._held, ""
        return held

    def _decode(self, token: int) -> str:
        """The token's text; an incomplete character stays in the stream."""
        return "" if self._tokenizer is None else self._stream.step(self._tokenizer, token) or ""

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
