"""Guessing what comes next by looking up what followed when the newest tokens came before (prompt look-up decoding,
Saxena 2023). Knows tokens only."""

from collections.abc import Sequence

NEWEST = 3  # tokens that must have come before, in a row


class Lookup:
    """What followed each run of NEWEST tokens, in one growing sequence, the last time that it was there."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], int] = {}  # of the token that followed
        self._next = NEWEST  # first place that is not noted yet
        self._ahead = 1  # tokens to guess next: more after a guess that was right, fewer after one that was not

    def guess(self, tokens: Sequence[int], most: int) -> tuple[int, ...]:
        """At most `most` tokens that may follow `tokens`, which are those of the last call and more."""
        for next_place in range(self._next, len(tokens)):
            self._places[tuple(tokens[next_place - NEWEST : next_place])] = next_place
        self._next = max(self._next, len(tokens))
        place = self._places.get(tuple(tokens[-NEWEST:]))
        if place is None:
            return ()
        period = len(tokens) - place
        return tuple(tokens[place + i % period] for i in range(min(self._ahead, most)))

    def judged(self, guessed: int, right: int) -> None:
        """How much of the last guess was right."""
        self._ahead = 2 * guessed if right == guessed else right + 1
