"""One request, from prompt to last token: place, grant, follow. A lost worker is replaced, and its tokens are kept."""

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass

import structlog

from mesh.errors import Broken, InvalidRequest, NotFound, Unreachable
from mesh.moves import AnswerMove
from mesh.requests import FinishReason, Phase, Placement, Progress, StartKind, StartTimes
from services.gateway.asked import Asked
from services.gateway.exactness import Numerics
from services.gateway.journal import Journal
from services.gateway.moving.limits import MoveLimits
from services.gateway.moving.running import Running
from services.gateway.places import Events, Places
from services.gateway.relay import Lines
from services.gateway.retries import Bounds, Retries
from services.gateway.strand import Delta, Strand
from services.gateway.suspects import Suspects
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

    def __init__(
        self,
        places: Places,
        lines: Lines,
        numerics: Numerics,
        gateway_id: str,
        *,
        bounds: Bounds,
        limits: MoveLimits,
    ) -> None:
        self._places, self._lines, self._numerics = places, lines, numerics
        self._gateway_id, self._bounds, self._limits = gateway_id, bounds, limits
        self._numbers = itertools.count()
        self._suspects = Suspects()

    async def run(self, asked: Asked) -> AsyncGenerator[Event, None]:
        """Progress, one Started, Deltas, one Finished; Progress again where an answer waits for another worker.
        Closing the iteration cancels the request."""
        trial = Trial(asked, self._journals(asked), Retries(self._bounds))
        if trial.ended:
            yield _finished(trial, Placement("", "", 0, trial.digest, StartKind.WARM, StartTimes(0.0, 0.0)))
            return
        with self._suspects.among(trial):
            async with aclosing(self._tries(trial)) as events:
                async for event in events:
                    yield event

    async def _tries(self, trial: Trial) -> AsyncGenerator[Event, None]:
        while True:
            pause_s = 0.0
            try:
                async with self._suspects.apart(trial), aclosing(self._attempt(trial)) as events:
                    async for event in events:
                        self._suspects.heed(trial)
                        yield event
                return
            except NotByThisVersion:
                trial.current_only = True
            except (Unreachable, NotFound) as error:
                pause_s = trial.failed(error, company=self._suspects.had_company(trial))
            yield Progress(Phase.QUEUED)
            await asyncio.sleep(pause_s)

    def _journals(self, asked: Asked) -> list[Journal]:
        """One for each answer, under keys of ours: clients may send one request id twice."""
        changed = asyncio.Event()
        keys = [f"{self._gateway_id}/{next(self._numbers)}" for _ in range(asked.answers)]
        return [Journal(key, asked.model, asked.prepared.question, changed) for key in keys]

    async def _attempt(self, trial: Trial) -> AsyncGenerator[Event, None]:
        async with aclosing(self._places.assign(trial.wish())) as places:
            async for event in places:
                if not isinstance(event, Placement):
                    if isinstance(event, Progress):
                        yield event
                    continue
                await trial.begin_at(event)
                async with aclosing(self._follow(trial, event, places)) as answer:
                    async for item in answer:
                        yield item
                return  # only now is the place given back
        raise Broken("the scheduler's answer ended without a placement")

    async def _follow(self, trial: Trial, place: Placement, places: Events) -> AsyncGenerator[Event, None]:
        """The answers from one worker, and from those that they go on at: what has not ended is cancelled there if this
        ends early.

        The first goes ahead; once it has a token, the others find the prompt's KV beside it.
        """
        changed, model = trial.journals[0].changed, trial.asked.model
        first, *others = [strand for strand in trial.strands if not strand.ended]
        handover = trial.handover(await self._numerics.soon_of(model, place)) if trial.tokens else None
        running = Running(trial, place, self._lines, self._numerics, self._limits)
        async with running.moving(places):
            with ExitStack() as granted:
                going = running.grant([first], handover, granted)
                yield Progress(Phase.READY)  # the worker is at it already, so this costs the first token nothing
                while going:
                    changed.clear()
                    for delta in filter(None, map(Strand.read, tuple(going))):
                        going += running.grant(others, handover, granted)
                        others.clear()
                        running.all_granted()
                        if not trial.first_token_s:
                            trial.first_token_s, trial.numerics = trial.passed_s, self._numerics.of(model, running.at)
                            yield Started(running.at, trial.prompt_tokens)
                        yield delta
                    going = [strand for strand in going if not strand.ended]
                    if going:
                        await changed.wait()
            yield _finished(trial, running.at)


def _finished(trial: Trial, place: Placement) -> Finished:
    ends = tuple(AnswerEnd(strand.reason, strand.stop or "", strand.seen) for strand in trial.strands)
    moves = tuple(move for strand in trial.strands for move in strand.journal.owners.moves)
    return Finished(place, trial.prompt_tokens, trial.first_token_s, trial.passed_s, ends, moves)
