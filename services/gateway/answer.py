"""One request, from prompt to last token: place, grant, follow. A worker lost before the first token is replaced."""

import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

from mesh.errors import Broken, InvalidRequest, MeshError, NotFound, Unreachable
from mesh.requests import FinishReason, Phase, Placement, Progress, Sampling, Wish
from services.gateway.detokenize import Detokenizer
from services.gateway.journal import Journal, Question
from services.gateway.places import Places
from services.gateway.relay import Lines
from services.gateway.texts import Text


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request, checked and tokenized, for one version of its model."""

    question: Question
    text: Text


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. `prepared` is for the version that the catalogue points at; the one that answers may be another."""

    request_id: str
    model: str
    stops: tuple[str, ...]
    arrived_s: float  # time.monotonic
    prepared: Prepared
    prepare: Callable[[str], Awaitable[Prepared]]  # for the version of a digest; MeshErrors when that cannot answer it


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has begun to answer."""

    placement: Placement
    prompt_tokens: int


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
    prompt_tokens: int
    completion_tokens: int
    first_token_s: float  # from arrival
    total_s: float
    stop: str


Event = Progress | Started | Delta | Finished


class _NotByThisVersion(Exception):
    """The version that has a place for the request cannot answer it; the catalogue's can."""


@dataclass(slots=True)
class _Trial:
    """How often a request was tried, and where it should not be tried again."""

    place: Placement | None = None
    excluded: set[int] = field(default_factory=set)
    current_only: bool = False

    def wish(self, asked: Asked) -> Wish:
        return Wish(asked.request_id, asked.model, frozenset(self.excluded), self.current_only)


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
        journal = Journal(key, asked.model, asked.prepared.question)
        trial = _Trial()
        while True:
            try:
                async with aclosing(self._attempt(asked, journal, trial)) as events:
                    async for event in events:
                        yield event
                return
            except _NotByThisVersion:
                trial.current_only = True
            except (Unreachable, NotFound) as error:
                if not self._try_again(journal, error, trial):
                    raise
            yield Progress(Phase.QUEUED)

    def _try_again(self, journal: Journal, error: MeshError, trial: _Trial) -> bool:
        """Whether to try another worker: only while the client has nothing of the answer."""
        if "worker" not in error.metadata or trial.place is None:
            return False
        if journal.tokens or len(trial.excluded) + 1 >= self._attempts:
            return False
        trial.excluded.add(trial.place.fence)
        return True

    async def _attempt(self, asked: Asked, journal: Journal, trial: _Trial) -> AsyncGenerator[Event, None]:
        async with aclosing(self._places.assign(trial.wish(asked))) as places:
            async for event in places:
                if isinstance(event, Progress):
                    yield event
                    continue
                trial.place = event
                prepared = await _prepared(asked, event.digest, trial)
                journal.rewrite(prepared.question)
                async with aclosing(self._follow(asked, prepared, journal, event)) as answer:
                    async for item in answer:
                        yield item
                return  # only now is the place given back
        raise Broken("the scheduler's answer ended without a placement")

    async def _follow(
        self, asked: Asked, prepared: Prepared, journal: Journal, place: Placement
    ) -> AsyncGenerator[Event, None]:
        """The answer from one worker: the journal is cancelled there if this ends early."""
        question = prepared.question
        detokenizer = Detokenizer(prepared.text.spelling, asked.stops, question.prompt)
        seen, first_s, stop = 0, 0.0, None
        with self._lines.to(place.worker_id, place.address).granted(journal):
            yield Progress(Phase.READY)  # the worker is at it already, so this costs the first token nothing
            while stop is None:
                tokens = await journal.news(seen)
                if not seen:
                    first_s = time.monotonic() - asked.arrived_s
                    yield Started(place, len(question.prompt))
                piece = detokenizer.feed(_visible(tokens, question.sampling))
                stop, shown = piece.stop, tokens if piece.stop is None else tokens[: piece.tokens]
                done = journal.finish is not None and seen + len(tokens) == len(journal.tokens)
                tail = detokenizer.finish() if done and stop is None else ""
                yield Delta(piece.text + tail, shown, seen)
                seen += len(shown)
                if done:
                    break
        reason = FinishReason.STOP if stop is not None else journal.finish or FinishReason.ERROR
        total_s = time.monotonic() - asked.arrived_s
        yield Finished(reason, place, len(question.prompt), seen, first_s, total_s, stop or "")


async def _prepared(asked: Asked, digest: str, trial: _Trial) -> Prepared:
    """The request for the version that has a place for it."""
    if digest == asked.prepared.question.digest:
        return asked.prepared
    try:
        return await asked.prepare(digest)
    except MeshError as error:
        if trial.current_only:
            raise
        raise _NotByThisVersion from error


def _visible(tokens: Iterable[int], sampling: Sampling) -> list[int]:
    """Without the tokens that end an answer: they are ids, not text."""
    ends = set(sampling.stop_token_ids)
    return [token for token in tokens if token not in ends]
