"""Answers that keep to a guide: which tokens may come next. All of it follows from the answer's tokens, so that a
move, a preemption and a restart go on where they were."""

from collections.abc import Sequence, Set

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from mesh.grammar import LIMITS, grammar_of
from mesh.requests import Guide
from services.worker.engine.errors import GuideRefused


class Grammar:
    """A guide compiled for a tokenizer; for any number of requests, and made on any thread. Raises GuideRefused."""

    def __init__(self, tokenizer: LLTokenizer, guide: Guide) -> None:
        try:
            self._start = LLMatcher(tokenizer, grammar_of(guide), log_level=0, limits=LIMITS)
        except ValueError as error:
            raise GuideRefused(f"this {guide.kind} {error}") from error
        if self._start.is_error():
            raise GuideRefused(f"this {guide.kind} cannot be followed: {self._start.get_error().strip()}")
        self._ends = frozenset(tokenizer.eos_tokens)

    def follow(self) -> "Following":
        """For one more answer."""
        return Following(self._start.deep_copy(), self._ends)


class Following:
    """How far one answer has come in its grammar. It catches up with whatever tokens it is shown."""

    def __init__(self, matcher: LLMatcher, ends: Set[int]) -> None:
        self._matcher, self._ends = matcher, ends
        self._seen = 0

    def complete(self, answer: Sequence[int]) -> bool:
        """Whether nothing can follow but the end."""
        self._catch_up(answer)
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def allowed(self, answer: Sequence[int], stops: Set[int], vocabulary: int) -> Tensor:
        """[vocabulary] bool on the host: the tokens that may come next. The end of a sequence is one where the grammar
        can end, if it is among `stops` at all. None at all are left when the grammar is at fault or at a dead end."""
        self._catch_up(answer)
        mask = torch.zeros(vocabulary, dtype=torch.bool)
        if not self._matcher.is_error():
            packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            bits = np.unpackbits(packed, bitorder="little")[:vocabulary]
            mask[: len(bits)] = torch.from_numpy(bits)
            mask[[end for end in self._ends - stops if end < vocabulary]] = False
        return mask

    @property
    def fault(self) -> str:
        """Why it cannot go on; empty when that is because its grammar may end here."""
        if self._matcher.is_error():
            return f"the guide cannot be followed any further: {self._matcher.get_error().strip()}"
        return "" if self._matcher.is_accepting() else "no token of this model continues what the guide asks for"

    def _catch_up(self, answer: Sequence[int]) -> None:
        fresh = answer[self._seen :]
        if fresh:
            self._matcher.consume_tokens(list(fresh))
            self._seen = len(answer)
