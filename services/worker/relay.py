"""The worker's end of a gateway's line: grants and cancels in, the frames of each engine step out."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

import structlog

from mesh.errors import MeshError
from mesh.requests import Cancel, Farewell, FinishReason, Frame, Grant, Sampling
from services.worker.engine.engine import Engine
from services.worker.engine.errors import EngineError, GuideRefused, PromptTooLong, QueueFull, UnknownReplica
from services.worker.engine.guide import Grammar
from services.worker.engine.request import EngineRequest, TokenStep
from services.worker.engine.sample import SamplingParams
from services.worker.guides import Guides
from services.worker.naming import replica_name

log = structlog.get_logger()
REASONS: dict[type[EngineError], str] = {
    UnknownReplica: "REPLICA_NOT_RESIDENT",
    PromptTooLong: "PROMPT_TOO_LONG",
    QueueFull: "QUEUE_FULL",
    GuideRefused: "BAD_GUIDE",
}


@dataclass(eq=False, slots=True)
class Line:
    """One gateway's stream: what waits to be sent on it."""

    outgoing: asyncio.Queue[list[Frame | Farewell]]


@dataclass(frozen=True, slots=True)
class Granted:
    """A request that runs here, under the epoch of its newest grant."""

    line: Line
    key: str
    epoch: int

    @property
    def engine_id(self) -> str:
        """The engine's name for this ownership: a request that comes back under another epoch is another one."""
        return f"{self.key}#{self.epoch}"


class Relay:
    """All gateways' lines. Lives on the event loop; only `on_steps` is called from the engine's thread."""

    engine: Engine  # set once, before the first line: engine and relay know each other
    guides: Guides  # likewise

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.on_load: Callable[[], None] = lambda: None
        self._lines: set[Line] = set()
        self._draining = False
        self._by_key: dict[str, Granted] = {}
        self._by_engine_id: dict[str, Granted] = {}
        self._compiling: dict[str, asyncio.Task[None]] = {}  # by engine id; what is granted owns its task

    def on_steps(self, steps: list[TokenStep]) -> None:
        """The engine's callback."""
        self._loop.call_soon_threadsafe(self._dispatch, steps)

    async def serve(self, commands: AsyncIterator[Grant | Cancel]) -> AsyncGenerator[list[Frame | Farewell], None]:
        """One line, until its commands end; what still runs on it is then cancelled."""
        line = Line(asyncio.Queue())
        self._lines.add(line)
        reader = asyncio.create_task(self._read(line, commands), name="relay")
        reader.add_done_callback(lambda _: line.outgoing.put_nowait([]))
        if self._draining:
            line.outgoing.put_nowait([Farewell()])
        try:
            last = False
            while not last and (frames := await line.outgoing.get()):
                while not last and not line.outgoing.empty():
                    more = line.outgoing.get_nowait()
                    frames, last = frames + more, not more
                yield frames
        finally:
            reader.cancel()
            self._lines.discard(line)
            for granted in [g for g in self._by_key.values() if g.line is line]:
                self._cancel(granted)

    def drain(self) -> None:
        """Says farewell on each line: gateways take what is new elsewhere, and close it once nothing runs on it.

        Were we to close it, what we had said just before could be lost where a grant crosses it.
        """
        self._draining = True
        for line in self._lines:
            line.outgoing.put_nowait([Farewell()])

    async def _read(self, line: Line, commands: AsyncIterator[Grant | Cancel]) -> None:
        async for command in commands:
            running = self._by_key.get(command.key)
            if isinstance(command, Grant):
                if running is None or running.epoch < command.epoch:
                    self._grant(line, command, running)
            elif running and running.epoch <= command.epoch:
                self._cancel(running)

    def _grant(self, line: Line, grant: Grant, former: Granted | None) -> None:
        if former:
            self._cancel(former)
        granted = Granted(line, grant.key, grant.epoch)
        self._by_key[granted.key] = self._by_engine_id[granted.engine_id] = granted
        if grant.sampling.guide:
            task = asyncio.create_task(self._guided(granted, grant), name=f"guide {granted.engine_id}")
            self._compiling[granted.engine_id] = task
            task.add_done_callback(lambda _: self._compiling.pop(granted.engine_id))
        else:
            self._submit(granted, grant)
        self.on_load()

    async def _guided(self, granted: Granted, grant: Grant) -> None:
        """Submits it once its guide is compiled; cancelled with it."""
        assert grant.sampling.guide
        try:
            grammar = await self.guides.grammar(replica_name(grant.model, grant.digest), grant.sampling.guide)
        except EngineError as error:
            self._refuse(granted, REASONS.get(type(error), "REFUSED"), str(error))
        except MeshError as error:
            self._refuse(granted, error.reason, error.message)
        except Exception as error:  # this task's outermost frame: the request must not wait for ever
            log.exception("a guide could not be compiled", model=grant.model)
            self._refuse(granted, "ENGINE_FAILED", f"{type(error).__name__}: {error}")
        else:
            self._submit(granted, grant, grammar)

    def _submit(self, granted: Granted, grant: Grant, grammar: Grammar | None = None) -> None:
        request = EngineRequest(
            request_id=granted.engine_id,
            replica=replica_name(grant.model, grant.digest),
            prompt_ids=grant.prompt,
            params=_params(grant.sampling),
            generated=grant.log,
            grammar=grammar,
        )
        try:
            self.engine.submit(request)
        except EngineError as error:
            self._refuse(granted, REASONS.get(type(error), "REFUSED"), str(error))

    def _refuse(self, granted: Granted, reason: str, why: str) -> None:
        self._forget(granted)
        granted.line.outgoing.put_nowait([Frame(granted.key, granted.epoch, failure_reason=reason, failure=why)])

    def _cancel(self, granted: Granted) -> None:
        self._forget(granted)
        if compiling := self._compiling.get(granted.engine_id):
            compiling.cancel()
        self.engine.cancel(granted.engine_id)

    def _dispatch(self, steps: list[TokenStep]) -> None:
        batches: defaultdict[Line, list[Frame | Farewell]] = defaultdict(list)
        for step in steps:
            if granted := self._by_engine_id.get(step.request_id):
                batches[granted.line].append(_frame(granted, step))
                if step.finish:
                    self._forget(granted)
            elif step.finish:  # cancelled a while ago, and only now gone from what is told as running
                self.on_load()
        for line, frames in batches.items():
            line.outgoing.put_nowait(frames)

    def _forget(self, granted: Granted) -> None:
        self._by_engine_id.pop(granted.engine_id, None)
        if self._by_key.get(granted.key) is granted:
            del self._by_key[granted.key]
        self.on_load()


def _frame(granted: Granted, step: TokenStep) -> Frame:
    if step.finish is FinishReason.ERROR:
        return Frame(granted.key, granted.epoch, failure_reason="ENGINE_FAILED", failure=step.error)
    return Frame(granted.key, granted.epoch, step.seq, step.tokens, step.finish, logprobs=step.logprobs)


def _params(sampling: Sampling) -> SamplingParams:
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=sampling.seed,
        stop_token_ids=sampling.stop_token_ids,
        ignore_eos=True,  # the gateway has put the model's own ends among the ids
        logit_bias=sampling.logit_bias,
        top_logprobs=sampling.top_logprobs,
    )
