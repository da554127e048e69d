"""Conversations: requests that go on where another ended, and the prefixes that they share with it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count

import numpy as np

from sim.request import Request

BLOCK_TOKENS = 512  # as in the Mooncake traces


@dataclass(frozen=True, slots=True)
class Sessions:
    """Conversations of geometric length. What goes on takes the next request of its model once its user has thought."""

    turns: float = 3.0  # on average, where a model is asked often enough
    median_think_s: float = 20.0  # from one turn's arrival to the earliest next; log-normal, sigma 1
    system_blocks: int = 1  # with which each tenant's prompts begin


def blocks_of(
    rng: np.random.Generator, requests: Sequence[Request], sessions: Sessions, context_tokens: int
) -> list[Request]:
    """The requests in conversations: a later turn's prompt is all of the one before, its answer, and its own."""
    fresh, found = count(1), list[Request]()
    going_on: dict[str, list[tuple[float, int, Request]]] = {}  # by model: heaps, the first to be ready first
    systems: dict[str, tuple[int, ...]] = {}
    for number, request in enumerate(requests):
        ready = going_on.setdefault(request.model, [])
        if ready and ready[0][0] <= request.at_s:
            made = _next_turn(request, heappop(ready)[2], fresh, context_tokens)
        else:
            system = systems.setdefault(request.tenant, tuple(next(fresh) for _ in range(sessions.system_blocks)))
            made = replace(request, session=f"session-{number}", blocks=_blocks(request.prompt_tokens, system, fresh))
        if rng.random() < 1.0 - 1.0 / sessions.turns:
            think_s = sessions.median_think_s * float(np.exp(rng.normal(0.0, 1.0)))
            heappush(ready, (request.at_s + think_s, number, made))
        found.append(made)
    return found


def _next_turn(request: Request, last: Request, fresh: "count[int]", context_tokens: int) -> Request:
    prompt = last.prompt_tokens + last.answer_tokens + request.prompt_tokens
    if prompt + request.answer_tokens > context_tokens:
        prompt = max(1, context_tokens - request.answer_tokens)
    kept = last.blocks[: last.prompt_tokens // BLOCK_TOKENS]
    return replace(request, prompt_tokens=prompt, session=last.session, blocks=_blocks(prompt, kept, fresh))


def _blocks(tokens: int, prefix: tuple[int, ...], fresh: "count[int]") -> tuple[int, ...]:
    wanted = -(-tokens // BLOCK_TOKENS)
    return (prefix + tuple(next(fresh) for _ in range(wanted - len(prefix))))[:wanted]
