"""One request, from prompt to last token: place, grant, follow. A worker lost before the first token is replaced."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass

import structlog

from mesh.errors import Broken, InvalidRequest, MeshError, NotFound, Unreachable
from mesh.moves import AnswerMove
from mesh.requests import FinishReason, Phase, Placement, Progress
from services.gateway.asked import Asked
from services.gateway.journal import Journal
from services.gateway.places import Places
from services.gateway.relay import Line, Lines
from services.gateway.strand import Delta, Strand
from services.gateway.trial import NotByThisVersion, Trial

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has begun to answer."""

    placement: Placement
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """How one answer ended."""

    reason: FinishReason
    stop: str  # the stop text that ended it, if one did
    tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The end, and how it went."""

    placement: Placement
    prompt_tokens: int
    first_token_s: float  # from arrival
    total_s: float
    answers: tuple[AnswerEnd, ...]  # in order
    moves: tuple[AnswerMove, ...] = ()

    @property
    def completion_tokens(self) -> int:
        """Of all answers together."""
        return sum(answer.tokens for answer in self.answers)


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
        journals = self._journals(asked)
        trial = Trial()
        while True:
            try:
                async with aclosing(self._attempt(asked, journals, trial)) as events:
                    async for event in events:
                        yield event
                return
            except NotByThisVersion:
                trial.current_only = True
            except (Unreachable, NotFound) as error:
                if not self._try_again(journals, error, trial):
                    raise
            yield Progress(Phase.QUEUED)

    def _journals(self, asked: Asked) -> list[Journal]:
        """One for each answer, under keys of ours: clients may send one request id twice."""
        changed = asyncio.Event()
        keys = [f"{self._gateway_id}/{next(self._numbers)}" for _ in range(asked.answers)]
        return [Journal(key, asked.model, asked.prepared.question, changed) for key in keys]

    def _try_again(self, journals: Sequence[Journal], error: MeshError, trial: Trial) -> bool:
        """Whether to try another worker: only while the client has nothing of any answer."""
        if "worker" not in error.metadata or trial.place is None:
            return False
        if any(journal.tokens for journal in journals) or len(trial.excluded) + 1 >= self._attempts:
            return False
        trial.excluded.add(trial.place.fence)
        log.info("trying another worker", model=journals[0].model, error=error.message, tried=len(trial.excluded))
        return True

    async def _attempt(self, asked: Asked, journals: Sequence[Journal], trial: Trial) -> AsyncGenerator[Event, None]:
        async with aclosing(self._places.assign(trial.wish(asked))) as places:
            async for event in places:
                if isinstance(event, Progress):
                    yield event
                    continue
                trial.place = event
                prepared = await trial.prepared(asked, event.digest)
                strands = [Strand(i, journal, prepared, asked.stops) for i, journal in enumerate(journals)]
                async with aclosing(self._follow(asked, strands, event)) as answer:
                    async for item in answer:
                        yield item
                return  # only now is the place given back
        raise Broken("the scheduler's answer ended without a placement")

    async def _follow(self, asked: Asked, strands: Sequence[Strand], place: Placement) -> AsyncGenerator[Event, None]:
        """The answers from one worker: what has not ended is cancelled there if this ends early.

        The first goes ahead; once it has a token, the others find the prompt's KV beside it.
        """
        line, changed = self._lines.to(place.worker_id, place.address), strands[0].journal.changed
        prompt_tokens, first_s = len(strands[0].journal.question.prompt), 0.0
        with ExitStack() as granted:
            going = _granted(strands[:1], line, granted)
            yield Progress(Phase.READY)  # the worker is at it already, so this costs the first token nothing
            while going:
                changed.clear()
                for delta in filter(None, map(Strand.read, tuple(going))):
                    if not first_s:
                        first_s = time.monotonic() - asked.arrived_s
                        going += _granted(strands[1:], line, granted)
                        yield Started(place, prompt_tokens)
                    yield delta
                going = [strand for strand in going if not strand.ended]
                if going:
                    await changed.wait()
        ends = tuple(AnswerEnd(strand.reason, strand.stop or "", strand.seen) for strand in strands)
        moves = tuple(move for strand in strands for move in strand.journal.owners.moves)
        yield Finished(place, prompt_tokens, first_s, time.monotonic() - asked.arrived_s, ends, moves)


def _granted(strands: Sequence[Strand], line: Line, granted: ExitStack) -> list[Strand]:
    """Has the worker answer them, each until it ends, or until `granted` is closed."""
    for strand in strands:
        granted.enter_context(strand.running)
        strand.running.enter_context(line.granted(strand.journal))
    return list(strands)
