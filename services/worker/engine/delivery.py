"""From logits to what each request is told: the token drawn, and whether it was the last."""

from collections.abc import Sequence

from torch import Tensor

from services.worker.engine.generation import Generation
from services.worker.engine.request import TokenStep
from services.worker.engine.sample import Draw, sample


def deliver(generations: Sequence[Generation], logits: Tensor) -> list[TokenStep]:
    """Draws each one's next token from its row of `logits` [rows, vocabulary], and adds it to its tokens."""
    draws = [Draw(one.request.params, one.tokens, one.prompt_len) for one in generations]
    steps = []
    for generation, token in zip(generations, sample(logits, draws), strict=True):
        generation.tokens.append(token)
        step = TokenStep(generation.request.request_id, generation.generated - 1, (token,), generation.finish)
        steps.append(step)
    return steps
