"""What goes into the engine and what comes out: plain values, safe to hand from thread to thread."""

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.facts import NumericsLevel, RunnerKind
from mesh.requests import FinishReason, TokenLogprob
from services.worker.engine.errors import TokenOutOfRange
from services.worker.engine.guide import Grammar
from services.worker.engine.sample import SamplingParams


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One sequence to continue. `generated` are tokens already delivered (by another worker, or before a
    restart): they are prefilled like the prompt, and the next token has seq = len(generated)."""

    request_id: str
    replica: str
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    generated: tuple[int, ...] = ()
    grammar: Grammar | None = None  # what the answer keeps to

    def check_vocabulary(self, size: int) -> None:
        """Raise TokenOutOfRange unless every token that it names is below `size`."""
        named = (*self.prompt_ids, *self.generated, *(one.token_id for one in self.params.logit_bias))
        if named and (min(named) < 0 or max(named) >= size):
            raise TokenOutOfRange(f"tokens must be from 0 to {size - 1}")


@dataclass(frozen=True, slots=True)
class TokenStep:
    """What one step produced for one request. A stop token is delivered too, with finish = STOP."""

    request_id: str
    seq: int  # index of the first of `tokens`, counted from the first generated token
    tokens: tuple[int, ...]
    finish: FinishReason | None = None
    error: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()  # one for each of `tokens`, when asked for


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """A replica's load now, and its counters since it was added."""

    running: int
    waiting: int
    free_blocks: int  # idle: blank, or cached and evictable
    total_blocks: int
    steps: int
    tokens: int  # generated
    prefix_tokens: int  # found in the pool, or below it, instead of computed
    preemptions: int
    runner: RunnerKind = RunnerKind.PACKED
    raised_tokens: int = 0  # of the prefix tokens, those brought up from host memory
    draft_tokens: int = 0  # guessed ahead
    taken_tokens: int = 0  # of these, those that the model said too
    numerics: NumericsLevel = NumericsLevel.FAST
    fingerprint: str = ""  # equal on two replicas: equal bits, as far as the level promises; empty if it promises none
    prefill_token_s: float = 0.0  # what a token of a prompt has cost; 0: not known yet


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Every resident replica by name."""

    replicas: Mapping[str, ReplicaStats]
