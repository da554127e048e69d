"""Taking of guessed tokens what the model itself says. A token is a function of its seed, its place and the tokens
before it alone, so what is taken, drawn or greedy, is what would have come one step at a time."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from services.worker.engine.batch import Span
from services.worker.engine.delivery import deliver
from services.worker.engine.generation import Generation
from services.worker.engine.request import TokenStep


def verify(spans: Sequence[Span], logits: Tensor) -> list[TokenStep]:
    """What each span's generation is told: of `logits` [rows, vocabulary] a span has a row, and one more for each
    token of its draft. Rows are drawn from in order, for as long as the draft has said the same."""
    first: dict[Generation, int] = {}
    rows = 0
    for span in spans:
        first[span.generation] = rows
        rows += 1 + len(span.draft)
    told = deliver([span.generation for span in spans], logits[list(first.values())] if rows > len(spans) else logits)
    steps = dict(zip(first, told, strict=True))
    going, place = [span for span in spans if span.draft], 0
    while going := [span for span in going if _confirmed(span, place, steps[span.generation])]:
        place += 1
        generations = [span.generation for span in going]
        more = deliver(generations, logits[[first[generation] + place for generation in generations]])
        for generation, step in zip(generations, more, strict=True):
            steps[generation] = _joined(steps[generation], step)
    return list(steps.values())


def _confirmed(span: Span, place: int, step: TokenStep) -> bool:
    """Whether the newest token is the one guessed at `place`, so that the next row is about what follows it."""
    return step.finish is None and place < len(span.draft) and step.tokens[-1] == span.draft[place]


def _joined(step: TokenStep, more: TokenStep) -> TokenStep:
    tokens, logprobs = step.tokens + more.tokens, step.logprobs + more.logprobs
    return replace(more, seq=step.seq, tokens=tokens, logprobs=logprobs)
