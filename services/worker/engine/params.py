"""How the engine is told to choose tokens."""

import math
from dataclasses import dataclass

from mesh.requests import TokenBias

MAX_SEED = 2**64 - 1
MOST_BIAS = 100.0
MOST_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens. Temperature 0 is greedy; top_k 0, top_p 1, min_p 0 and penalties 1, 0, 0 are off.

    The repetition penalty looks at prompt and generated tokens, presence and frequency at generated ones; biases are
    added to what the penalties leave. `top_logprobs` asks for each token's log-probability and those of so many others.
    """

    max_tokens: int = 16
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logit_bias: tuple[TokenBias, ...] = ()
    top_logprobs: int | None = None

    def check(self) -> None:
        """Raise ValueError naming the first field whose value makes no sense."""
        _within("max_tokens", self.max_tokens, 1, math.inf)
        _within("temperature", self.temperature, 0.0, 100.0)
        _within("top_k", self.top_k, 0, math.inf)
        _within("top_p", self.top_p, 0.0, 1.0, above=True)
        _within("min_p", self.min_p, 0.0, 1.0)
        _within("repetition_penalty", self.repetition_penalty, 0.0, 100.0, above=True)
        _within("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _within("seed", self.seed, 0, MAX_SEED)
        for token in self.stop_token_ids:
            _within("stop_token_ids", token, 0, math.inf)
        for one in self.logit_bias:
            _within("logit_bias", one.bias, -MOST_BIAS, MOST_BIAS)
        _within("top_logprobs", self.top_logprobs or 0, 0, MOST_TOP_LOGPROBS)

    @property
    def penalises(self) -> bool:
        """Whether logits depend on the tokens so far."""
        return bool(self.repetition_penalty != 1.0 or self.presence_penalty or self.frequency_penalty)

    @property
    def truncates(self) -> bool:
        """Whether some tokens are left out of the choice, however the model thinks of them."""
        return bool(self.top_k or self.top_p < 1.0 or self.min_p)

    @property
    def is_argmax(self) -> bool:
        """Whether the choice is the plain argmax of what logits there are."""
        return self.temperature == 0.0 and not self.penalises and not self.logit_bias


def _within(field: str, value: float, low: float, high: float, above: bool = False) -> None:
    if not (low < value <= high if above else low <= value <= high):  # NaN fails both
        bounds = f"{'above' if above else 'at least'} {low}" + (f" and at most {high}" if high < math.inf else "")
        raise ValueError(f"{field} must be {bounds}, got {value}")
