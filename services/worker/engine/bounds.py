"""What a replica can take: which tokens, how many of them, and where answers end."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from transformers import PreTrainedModel

from services.worker.engine.errors import EmptyPrompt, PromptTooLong
from services.worker.engine.request import EngineRequest


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one replica. `max_positions` is the model's own limit, `context_tokens` that and the memory's."""

    name: str
    vocabulary: int
    max_positions: int | None
    context_tokens: int
    eos_token_ids: frozenset[int]

    @classmethod
    def of(
        cls,
        name: str,
        module: PreTrainedModel,
        memory_tokens: int,
        *,
        eos_token_ids: Iterable[int] | None = None,
        stretches: bool = False,
    ) -> Self:
        """Those of a model with memory for so many tokens. `eos_token_ids` None takes the ends of answers from its
        configuration; one that `stretches` has no positions to run out of."""
        text = module.config.get_text_config(decoder=True)
        vocabulary = len(module.get_input_embeddings().get_parameter("weight"))
        positions: int | None = None if stretches else getattr(text, "max_position_embeddings", None)
        ends = _eos(getattr(text, "eos_token_id", None)) if eos_token_ids is None else eos_token_ids
        return cls(name, vocabulary, positions, min(positions or memory_tokens, memory_tokens), frozenset(ends))

    def check(self, request: EngineRequest) -> None:
        """Raise RequestRefused if it can never run, however idle the replica is."""
        count = len(request.prompt_ids) + len(request.generated)
        if not request.prompt_ids:
            raise EmptyPrompt("the prompt has no tokens; send at least one")
        request.check_vocabulary(self.vocabulary)
        complete = bool(request.generated) and count == self.max_positions
        if count >= self.context_tokens and not complete:
            why = "the model's positions" if self.context_tokens == self.max_positions else "the KV memory given to it"
            raise PromptTooLong(
                f"{count} tokens do not fit {self.name}: {why} allow {self.context_tokens - 1} before a new one"
            )

    def limit(self, request: EngineRequest) -> int:
        """How many tokens it ends with at the latest, the prompt's included."""
        return min(len(request.prompt_ids) + request.params.max_tokens, self.context_tokens)

    def stops(self, request: EngineRequest) -> frozenset[int]:
        """The tokens that end its answer."""
        own = frozenset[int]() if request.params.ignore_eos else self.eos_token_ids
        return frozenset(request.params.stop_token_ids) | own


def _eos(configured: int | list[int] | None) -> list[int]:
    if configured is None:
        return []
    return [configured] if isinstance(configured, int) else list(configured)
