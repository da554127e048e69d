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
    masks = [_allowed(one, logits) for one in generations]
    stuck = [mask is not None and not bool(mask.any()) for mask in masks]
    draws = [
        Draw(one.request.params, one.tokens, one.prompt_len, None if lost else mask)
        for one, mask, lost in zip(generations, masks, stuck, strict=True)
    ]
    tokens = sample(logits, draws)
    return [
        _stuck(one) if stuck[i] else _step(one, tokens[i], _likely(one, logits, i, tokens[i]))
        for i, one in enumerate(generations)
    ]


def _allowed(generation: Generation, logits: Tensor) -> Tensor | None:
    """[vocabulary] bool, of a guided one."""
    if generation.following is None:
        return None
    mask = generation.following.allowed(generation.answer, generation.stops, logits.shape[-1])
    return mask.to(logits.device)


def _likely(generation: Generation, logits: Tensor, row: int, token: int) -> tuple[TokenLogprob, ...]:
    top = generation.request.params.top_logprobs
    return () if top is None else (logprob(logits[row], token, top),)


def _step(generation: Generation, token: int, likely: tuple[TokenLogprob, ...]) -> TokenStep:
    generation.tokens.append(token)
    seq = generation.generated - 1
    return TokenStep(generation.request.request_id, seq, (token,), generation.finish, logprobs=likely)


def _stuck(generation: Generation) -> TokenStep:
    """The end of one whose guide leaves no token."""
    fault = generation.following.fault if generation.following else ""
    finish = FinishReason.ERROR if fault else FinishReason.STOP
    return TokenStep(generation.request.request_id, generation.generated, (), finish, fault)
