"""From logits to what each request is told: the token drawn, how likely it was, and whether it was the last."""

from collections.abc import Sequence

from torch import Tensor

from mesh.requests import FinishReason, TokenLogprob
from services.worker.engine.generation import Generation
from services.worker.engine.logprobs import logprob
from services.worker.engine.request import TokenStep
from services.worker.engine.sample import Draw, sample


def deliver(generations: Sequence[Generation], logits: Tensor) -> list[TokenStep]:
    """Draws each one's next token from its row of `logits` [rows, vocabulary], and adds it to its tokens."""
    draws = [_draw(one, logits) for one in generations]
    tokens = sample(logits, draws)
    steps = []
    for i, (generation, draw) in enumerate(zip(generations, draws, strict=True)):
        if draw.allowed is not None and not bool(draw.allowed.any()):
            steps.append(_stuck(generation))
        else:
            top = draw.params.top_logprobs
            likely = () if top is None else (logprob(logits[i], tokens[i], top),)
            steps.append(_step(generation, tokens[i], likely))
    return steps


def _draw(generation: Generation, logits: Tensor) -> Draw:
    allowed: Tensor | None = None
    if generation.following:
        mask = generation.following.allowed(generation.answer, generation.stops, logits.shape[-1])
        allowed = mask.to(logits.device)
    return Draw(generation.request.params, generation.tokens, generation.prompt_len, allowed)


def _step(generation: Generation, token: int, likely: tuple[TokenLogprob, ...]) -> TokenStep:
    generation.tokens.append(token)
    seq = generation.generated - 1
    return TokenStep(generation.request.request_id, seq, (token,), generation.finish, logprobs=likely)


def _stuck(generation: Generation) -> TokenStep:
    """The end of one whose guide leaves no token."""
    fault = generation.following.fault if generation.following else ""
    finish = FinishReason.ERROR if fault else FinishReason.STOP
    return TokenStep(generation.request.request_id, generation.generated, (), finish, fault)
