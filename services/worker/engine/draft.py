"""Guesses of what an answer's next tokens are, computed along with its newest one where a step has room for them.
verify.py takes of them what the model would have said."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from services.worker.engine.batch import Limits, Paged, Span
from services.worker.engine.kv_cache import KVCache
from services.worker.engine.lookup import Lookup
from services.worker.engine.numerics import Numerics
from services.worker.engine.passes import spare_rows


class Drafter:
    """Guesses at most `limits.draft_tokens` for each sequence of a step that decodes, where tokens and blocks are left
    over, and at a level that knows full passes only, rows that would be filled anyway."""

    def __init__(
        self, limits: Limits, numerics: Numerics, cache: KVCache, lookup: Callable[[], Lookup] = Lookup
    ) -> None:
        self._limits, self._numerics, self._cache, self._lookup = limits, numerics, cache, lookup
        self.guessed = self.taken = 0  # tokens, since it was made

    def extend(self, spans: Sequence[Span]) -> Sequence[Span]:
        """The spans with their drafts, for which there are blocks; those of one token first."""
        if not self._limits.draft_tokens:
            return spans
        budget = self._budget(spans)
        drafted = []
        for span in spans:
            guess = self._guess(
                span, min(self._limits.draft_tokens, budget), spare=self._cache.blocks.idle - len(spans)
            )
            budget -= len(guess)
            drafted.append(replace(span, count=span.count + len(guess), draft=guess) if guess else span)
        self._cache.settle()
        return sorted(drafted, key=lambda span: span.count > 1)

    def settle(self, span: Span, told: int) -> None:
        """`told` tokens came of a span with a draft; the KV of those that were guessed right is there already."""
        taken = max(0, told - 1)
        self.guessed, self.taken = self.guessed + len(span.draft), self.taken + taken
        span.generation.kv_len += taken
        self._cache.publish(span.generation)
        if span.generation.lookup:
            span.generation.lookup.judged(len(span.draft), taken)

    def _budget(self, spans: Sequence[Span]) -> int:
        left = self._limits.batch_tokens - sum(span.count for span in spans)
        return min(left, spare_rows(spans, self._numerics)) if self._numerics.tile else left

    def _guess(self, span: Span, most: int, spare: int) -> tuple[int, ...]:
        generation = span.generation
        most = min(most, generation.limit - len(generation.tokens) - 1)
        if most <= 0 or generation.pending != 1 or generation.ahead:
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
