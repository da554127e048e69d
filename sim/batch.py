"""A replica's batch: spans of one prefill, or of as many decoding steps as nothing changes in. The end of a span is
computed, so no event is a token."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Costs:
    """Device-seconds: a prefill takes `prefill_s` and `prefill_token_s` a token; a step takes `step_s`,
    `step_sequence_s` for each sequence of the batch and `step_token_s` for each token of their KV."""

    prefill_s: float
    prefill_token_s: float
    step_s: float
    step_sequence_s: float
    step_token_s: float

    def prefill(self, tokens: int) -> float:
        """Seconds of a prompt, up to its first token."""
        return self.prefill_s + self.prefill_token_s * tokens

    def steps(self, count: int, sequences: int, kv_tokens: int) -> float:
        """Seconds of `count` steps: each adds a token to every sequence."""
        first_s = self.step_s + self.step_sequence_s * sequences + self.step_token_s * kv_tokens
        return count * first_s + self.step_token_s * sequences * count * (count - 1) / 2.0

    def whole_steps(self, work_s: float, most: int, sequences: int, kv_tokens: int) -> int:
        """How many steps are done after so much work."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            done = self.steps(middle, sequences, kv_tokens) <= work_s + 1e-9
            low, high = (middle, high) if done else (low, middle - 1)
        return low


@dataclass(eq=False, slots=True)
class Sequence:
    """A request on a batch. `first` is called at its next token, the first one here, `done` after the last."""

    id: str
    prompt_tokens: int
    answer_tokens: int
    emitted_tokens: int
    first: Callable[[], None]
    done: Callable[[], None]
    cached_tokens: int = 0  # whose KV is there before the prefill

    @property
    def kv_tokens(self) -> int:
        """What a step reads, and a prefill computes if nothing of it is there."""
        return self.prompt_tokens + self.emitted_tokens


@dataclass(eq=False, slots=True)
class Batch:
    """The sequences of one replica. Prefills come first, one at a time; the others stand still meanwhile."""

    costs: Costs
    queued: list[Sequence] = field(default_factory=list)
    decoding: list[Sequence] = field(default_factory=list)
    prefilling: Sequence | None = None
    steps: int = 0  # of the span under way; 0 in a prefill, or when there is none
    began: float = 0.0  # in the device's turns
    ends: float = 0.0

    def sequences(self) -> list[Sequence]:
        """All of them, in order of how far they are."""
        return [*self.decoding, *([self.prefilling] if self.prefilling else []), *self.queued]

    @property
    def busy(self) -> bool:
        """Whether a span is under way."""
        return self.steps > 0 or self.prefilling is not None

    def steps_done(self, turns: float) -> int:
        """Whole steps of the span under way."""
        return self.costs.whole_steps(turns - self.began, self.steps, len(self.decoding), self._kv_tokens())

    def begin(self, turns: float) -> None:
        """The next span, if there is anything to do."""
        self.began, self.steps, work_s = turns, 0, 0.0
        if self.queued:
            self.prefilling = self.queued.pop(0)
            work_s = self.costs.prefill(self.prefilling.kv_tokens - self.prefilling.cached_tokens)
        elif self.decoding:
            self.steps = min(one.answer_tokens - one.emitted_tokens for one in self.decoding)
            work_s = self.costs.steps(self.steps, len(self.decoding), self._kv_tokens())
        self.ends = turns + work_s

    def cut(self, turns: float) -> None:
        """Ends a span of steps with the step under way, so that a newcomer's prefill is next."""
        done = self.steps_done(turns)
        started_s = self.costs.steps(done, len(self.decoding), self._kv_tokens())
        if turns > self.began + started_s + 1e-9:
            done += 1
        self.steps = min(self.steps, max(1, done))
        self.ends = max(turns, self.began + self.costs.steps(self.steps, len(self.decoding), self._kv_tokens()))

    def settle(self, steps: int) -> None:
        """So many steps are over: each sequence has their tokens."""
        for one in self.decoding:
            one.emitted_tokens += steps
        self.steps = 0

    def finish(self) -> list[Callable[[], None]]:
        """Ends the span under way, its end having come, and says whom to tell."""
        calls = list[Callable[[], None]]()
        if prefilled := self.prefilling:
            self.prefilling = None
            prefilled.emitted_tokens += 1
            self.decoding.append(prefilled)
            calls.append(prefilled.first)
        else:
            self.settle(self.steps)
        over = [one for one in self.decoding if one.emitted_tokens >= one.answer_tokens]
        self.decoding = [one for one in self.decoding if one not in over]
        return calls + [one.done for one in over]

    def _kv_tokens(self) -> int:
        return sum(one.kv_tokens for one in self.decoding)
