"""One request, from prompt to last token: place, grant, follow. A worker lost before the first token is replaced."""

import itertools
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass

from mesh.errors import Broken, InvalidRequest, MeshError, NotFound, Unreachable
from mesh.requests import FinishReason, Phase, Placement, Progress, Sampling
from services.gateway.detokenize import Detokenizer
from services.gateway.journal import Journal
from services.gateway.places import Places
from services.gateway.relay import Lines
from services.gateway.texts import Text


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, checked and tokenized."""

    request_id: str
    model: str
    prompt: tuple[int, ...]
    sampling: Sampling
    stops: tuple[str, ...]
    text: Text
    arrived_s: float  # time.monotonic


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has begun to answer."""

    placement: Placement


@dataclass(frozen=True, slots=True)
class Delta:
    """New tokens, and the text that they complete."""

    text: str
    tokens: tuple[int, ...]
    seq: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The end, and how it went."""

    reason: FinishReason
    placement: Placement
    completion_tokens: int
    first_token_s: float  # from arrival
    total_s: float
    stop: str


Event = Progress | Started | Delta | Finished


def check_room(prompt: tuple[int, ...], max_context: int) -> int:
    """Tokens that the prompt leaves of the context; raises InvalidRequest when it is empty or leaves none."""
    if not prompt:
        raise InvalidRequest.field("prompt", "must have at least one token", reason="EMPTY_PROMPT")
    if len(prompt) >= max_context:
        message = f"has {len(prompt)} tokens; this model takes at most {max_context - 1} and one for the answer"
        raise InvalidRequest.field("prompt", message, reason="PROMPT_TOO_LONG")
    return max_context - len(prompt)


class Answers:
    """Runs requests."""

    def __init__(self, places: Places, lines: Lines, gateway_id: str, attempts: int) -> None:
        self._places, self._lines, self._gateway_id, self._attempts = places, lines, gateway_id, attempts
        self._numbers = itertools.count()

    async def run(self, asked: Asked) -> AsyncGenerator[Event, None]:
        """Progress, one Started, Deltas, one Finished. Closing the iteration cancels the request."""
        key = f"{self._gateway_id}/{next(self._numbers)}"  # ours: clients may send one request id twice
        journal = Journal(key, asked.model, asked.prompt, asked.sampling)
        excluded: set[str] = set()
        while True:
            try:
                async with aclosing(self._attempt(asked, journal, excluded)) as events:
                    async for event in events:
                        yield event
                return
            except (Unreachable, NotFound) as error:
                if not self._try_again(journal, error, excluded):
                    raise
            yield Progress(Phase.QUEUED)

    def _try_again(self, journal: Journal, error: MeshError, excluded: set[str]) -> bool:
        """Whether to try another worker: only while the client has nothing of the answer."""
        worker_id = error.metadata.get("worker")
        if worker_id is None or journal.tokens or len(excluded) + 1 >= self._attempts:
            return False
        excluded.add(worker_id)
        return True

    async def _attempt(self, asked: Asked, journal: Journal, excluded: set[str]) -> AsyncGenerator[Event, None]:
        async with aclosing(self._places.assign(asked.request_id, asked.model, excluded)) as places:
            async for event in places:
                if isinstance(event, Progress):
                    yield event
                    continue
                async with aclosing(self._follow(asked, journal, event)) as answer:
                    async for item in answer:
                        yield item
                return  # only now is the place given back
        raise Broken("the scheduler's answer ended without a placement")

    async def _follow(self, asked: Asked, journal: Journal, place: Placement) -> AsyncGenerator[Event, None]:
        """The answer from one worker: the journal is cancelled there if this ends early."""
        detokenizer = Detokenizer(asked.text.tokenizer, asked.stops, asked.prompt)
        seen, first_s, stop = 0, 0.0, None
        with self._lines.to(place.worker_id, place.address).granted(journal):
            yield Progress(Phase.READY)  # the worker is at it already, so this costs the first token nothing
            while stop is None:
                tokens = await journal.news(seen)
                if not seen:
                    first_s = time.monotonic() - asked.arrived_s
                    yield Started(place)
                piece = detokenizer.feed(_visible(tokens, asked.sampling))
                stop, shown = piece.stop, tokens if piece.stop is None else tokens[: piece.tokens]
                done = journal.finish is not None and seen + len(tokens) == len(journal.tokens)
                tail = detokenizer.finish() if done and stop is None else ""
                yield Delta(piece.text + tail, shown, seen)
                seen += len(shown)
                if done:
                    break
        reason = FinishReason.STOP if stop is not None else journal.finish or FinishReason.ERROR
        yield Finished(reason, place, seen, first_s, time.monotonic() - asked.arrived_s, stop or "")


def _visible(tokens: Iterable[int], sampling: Sampling) -> list[int]:
    """Without the tokens that end an answer: they are ids, not text."""
    ends = set(sampling.stop_token_ids)
    return [token for token in tokens if token not in ends]
