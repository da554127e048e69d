"""Guesses of what an answer's next tokens are, computed along with its newest one where a step has room for them.
verify.py takes of them what the model would have said."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from services.worker.engine.batch import Paged, Span
from services.worker.engine.kv_cache import KVCache
from services.worker.engine.lookup import Lookup


class Drafter:
    """Guesses at most `most` tokens for each sequence of a step that decodes, where tokens and blocks are left over."""

    def __init__(self, most: int, cache: KVCache, lookup: Callable[[], Lookup] = Lookup) -> None:
        self._most, self._cache, self._lookup = most, cache, lookup
        self.guessed = self.taken = 0  # tokens, since it was made

    def extend(self, spans: Sequence[Span], budget: int) -> tuple[Span, ...]:
        """The spans, those of one token first, with guesses of at most `budget` tokens in all, for which there are
        blocks."""
        if not self._most:
            return tuple(spans)
        drafted = []
        for span in spans:
            guess = self._guess(span, min(self._most, budget), spare=self._cache.blocks.idle - len(spans))
            budget -= len(guess)
            drafted.append(replace(span, count=span.count + len(guess), draft=guess) if guess else span)
        self._cache.settle()
        return tuple(sorted(drafted, key=lambda span: span.count > 1))

    def settle(self, span: Span, told: int) -> None:
        """`told` tokens came of a span with a draft; the KV of those that were guessed right is there already."""
        taken = max(0, told - 1)
        self.guessed, self.taken = self.guessed + len(span.draft), self.taken + taken
        span.generation.kv_len += taken
        self._cache.publish(span.generation)
        if span.generation.lookup:
            span.generation.lookup.judged(len(span.draft), taken)

    def _guess(self, span: Span, most: int, spare: int) -> tuple[int, ...]:
        generation = span.generation
        most = min(most, generation.limit - len(generation.tokens) - 1)
        if most <= 0 or generation.pending != 1:
            return ()
        if generation.lookup is None:
            generation.lookup = self._lookup()
        guess = generation.lookup.guess(generation.tokens, most)
        return guess if guess and self._owns(generation, len(generation.tokens) + len(guess), spare) else ()

    def _owns(self, generation: Paged, tokens: int, spare: int) -> bool:
        """Whether the blocks for `tokens` tokens are there; a guess costs nobody else's."""
        if generation.table.missing(tokens) > max(0, spare):
            return False
        self._cache.grow(generation, tokens)
        return True
