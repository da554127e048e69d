"""How an answer is told that is more than one plain text: several in turn, or tokens with their likelihoods."""

from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from mesh.clients.gateway_records import AnswerEvent, Delta, Finished, Started
from mesh.requests import TokenLogprob


async def in_turn(events: AsyncGenerator[AnswerEvent], answers: int) -> AsyncGenerator[AnswerEvent]:
    """The first answer as it comes, then the others, each under a heading."""
    later: defaultdict[int, list[Delta]] = defaultdict(list)
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Started):
                yield Delta(_heading(0, answers), (), 0)
            if isinstance(event, Delta) and event.index:
                later[event.index].append(event)
                continue
            if isinstance(event, Finished):
                for index in range(1, answers):
                    yield Delta(_heading(index, answers), (), 0, index)
                    for delta in later[index]:
                        yield delta
            yield event


def _heading(index: int, answers: int) -> str:
    return ("\n" if index else "") + f"--- answer {index + 1} of {answers} ---\n"


async def with_likelihoods(events: AsyncGenerator[AnswerEvent]) -> AsyncGenerator[AnswerEvent]:
    """A line a token in place of the text: its id, its log-probability, and the likeliest in its place."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Delta):
                pairs = zip(event.token_ids, event.logprobs, strict=False)
                event = replace(event, text="".join(_line(token, likely) for token, likely in pairs))  # noqa: PLW2901
            yield event


def _line(token: int, likely: TokenLogprob) -> str:
    top = "  ".join(f"{one.text or one.token_id!r} {one.logprob:.3f}" for one in likely.top)
    return f"{token:>8} {likely.logprob:8.3f}  {top}".rstrip() + "\n"
