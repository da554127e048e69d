"""The worker's end of a gateway's line: grants, cancels and moves in, the frames of each engine step out."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

import structlog

from mesh.clients.relay import Command, News
from mesh.errors import MeshError
from mesh.faults import Point, reach, swallow
from mesh.moves import Abandon, Expect, MoveFailed, Send
from mesh.requests import Cancel, Farewell, FinishReason, Frame, Grant
from services.worker.engine.engine import Engine
from services.worker.engine.errors import EngineError, GuideRefused, PromptTooLong, QueueFull, UnknownReplica
from services.worker.engine.guide import Grammar
from services.worker.engine.mover import Mover
from services.worker.engine.request import EngineRequest, TokenStep
from services.worker.guides import Guides
from services.worker.moving.incoming import Incoming
from services.worker.moving.limits import USUAL, MoveLimits
from services.worker.moving.outgoing import Outgoing
from services.worker.naming import replica_name
from services.worker.requests import engine_request

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

    outgoing: asyncio.Queue[list[News]]

    def say(self, news: News) -> None:
        """After all that has been said on it."""
        self.outgoing.put_nowait([news])


@dataclass(frozen=True, slots=True)
class Granted:
    """A request that runs here, under the epoch of its newest grant. `former_id` is the engine's name for what was here
    of it before, from which it goes on; `number` is the grant's."""

    line: Line
    key: str
    epoch: int
    number: int
    former_id: str = ""

    @property
    def engine_id(self) -> str:
        """The engine's name for this ownership: a request that comes back is another one."""
        return f"{self.key}#{self.epoch}.{self.number}"


class Relay:
    """All gateways' lines. Lives on the event loop; only `on_steps` is called from the engine's thread."""

    engine: Engine
    guides: Guides
    incoming: Incoming
    outgoing: Outgoing

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.on_load: Callable[[], None] = lambda: None
        self._lines: set[Line] = set()
        self._draining = False
        self._numbers = itertools.count(1)  # of grants
        self._by_key: dict[str, Granted] = {}
        self._by_engine_id: dict[str, Granted] = {}
        self._preparing: dict[str, asyncio.Task[None]] = {}  # by engine id; what is granted owns its task

    def begin(self, engine: Engine, guides: Guides, limits: MoveLimits = USUAL) -> None:
        """Once, before the first line: engine and relay know each other."""
        self.engine, self.guides, self._mover = engine, guides, Mover(engine)
        self.incoming = Incoming(engine, guides, limits)
        self.outgoing = Outgoing(engine, limits, self._loop.time)

    def on_steps(self, steps: list[TokenStep]) -> None:
        """The engine's callback."""
        self._loop.call_soon_threadsafe(self._dispatch, steps, self._loop.time())

    async def serve(self, commands: AsyncIterator[Command]) -> AsyncGenerator[list[News], None]:
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
            self.incoming.line_ended(line)

    def drain(self) -> None:
        """Says farewell on each line: gateways take what is new elsewhere, and close it once nothing runs on it.

        Were we to close it, what we had said just before could be lost where a grant crosses it.
        """
        self._draining = True
        for line in self._lines:
            line.say(Farewell())

    async def _read(self, line: Line, commands: AsyncIterator[Command]) -> None:
        async for command in commands:
            match command:
                case Grant():
                    self._grant(line, command)
                case Cancel(key, epoch):
                    if (running := self._by_key.get(key)) and running.epoch <= epoch:
                        self._cancel(running)
                case Expect():
                    self.incoming.expect(command, line, line.say)
                case Send():
                    self._send(line, command)
                case Abandon(move_id):
                    self.incoming.abandon(move_id)
                    self.outgoing.abandon(move_id)

    def _send(self, line: Line, send: Send) -> None:
        """One of an older epoch than the running one is late, and ignored."""
        running = self._by_key.get(send.key)
        if running is None or running.epoch < send.epoch:
            line.say(MoveFailed(send.move_id, "REQUEST_NOT_HERE", f"request {send.key} does not run here"))
        elif running.epoch == send.epoch:
            self.outgoing.send(send, running.engine_id, line.say)

    def _grant(self, line: Line, grant: Grant) -> None:
        former = self._by_key.get(grant.key)
        if former and former.epoch >= grant.epoch:
            if former.line is line:
                return
            self._cancel(former)  # of a gateway of this name that is gone
            former = None
        arrived = self.incoming.claim(grant.move_id, grant.key)
        if former:
            self._forget(former)
            if arrived or former.engine_id in self._preparing:
                self._drop(former)
        former_id = arrived or (former.engine_id if former else "")
        granted = Granted(line, grant.key, grant.epoch, next(self._numbers), former_id)
        self._by_key[granted.key] = self._by_engine_id[granted.engine_id] = granted
        if grant.sampling.guide or granted.former_id:
            task = asyncio.create_task(self._prepared(granted, grant), name=f"preparing {granted.engine_id}")
            self._preparing[granted.engine_id] = task
            task.add_done_callback(lambda _: self._preparing.pop(granted.engine_id))
        else:
            self._submit(granted, engine_request(grant, granted.engine_id))
        self.on_load()

    async def _prepared(self, granted: Granted, grant: Grant) -> None:
        """Submits it once its guide is compiled, or has it go on from what was here; cancelled with it."""
        try:
            request = engine_request(grant, granted.engine_id, await self._grammar(grant))
            if grant.move_id:
                await reach(Point.TARGET_ADOPTS)
            await self._go_on(granted, request)
        except EngineError as error:
            self._refuse(granted, REASONS.get(type(error), "REFUSED"), str(error))
        except MeshError as error:
            self._refuse(granted, error.reason, error.message)
        except Exception as error:  # this task's outermost frame: the request must not wait for ever
            log.exception("a request could not be prepared", model=grant.model)
            self._refuse(granted, "ENGINE_FAILED", f"{type(error).__name__}: {error}")

    async def _grammar(self, grant: Grant) -> Grammar | None:
        if not grant.sampling.guide:
            return None
        return await self.guides.grammar(replica_name(grant.model, grant.digest), grant.sampling.guide)

    async def _go_on(self, granted: Granted, request: EngineRequest) -> None:
        """From what is here of it, or from its tokens."""
        if granted.former_id:
            await asyncio.wrap_future(self._mover.adopt(granted.former_id, request))
        else:
            self.engine.submit(request)

    def _submit(self, granted: Granted, request: EngineRequest) -> None:
        try:
            self.engine.submit(request)
        except EngineError as error:
            self._refuse(granted, REASONS.get(type(error), "REFUSED"), str(error))

    def _refuse(self, granted: Granted, reason: str, why: str) -> None:
        self._forget(granted)
        self.engine.cancel(granted.former_id)
        granted.line.say(Frame(granted.key, granted.epoch, failure_reason=reason, failure=why))

    def _cancel(self, granted: Granted) -> None:
        self._forget(granted)
        self._drop(granted)

    def _drop(self, granted: Granted) -> None:
        """Ends what the engine has of it."""
        if preparing := self._preparing.get(granted.engine_id):
            preparing.cancel()
        for name in (granted.engine_id, granted.former_id):
            self.engine.cancel(name)

    def _dispatch(self, steps: list[TokenStep], said_at: float) -> None:
        self.outgoing.pace.frames(self._loop.time() - said_at)
        batches: defaultdict[Line, list[News]] = defaultdict(list)
        for step in steps:
            swallow(step.tokens)
            if granted := self._by_engine_id.get(step.request_id):
                batches[granted.line].append(_frame(granted, step))
                if step.finish:
                    self._forget(granted)
            else:
                self.incoming.told(step)
                if step.finish:  # cancelled a while ago, and only now gone from what is told as running
                    self.on_load()
        for line, frames in batches.items():
            line.outgoing.put_nowait(frames)

    def _forget(self, granted: Granted) -> None:
        self._by_engine_id.pop(granted.engine_id, None)
        if self._by_key.get(granted.key) is granted:
            del self._by_key[granted.key]
        self.outgoing.left(granted.engine_id)
        self.on_load()


def _frame(granted: Granted, step: TokenStep) -> Frame:
    if step.finish is FinishReason.ERROR:
        return Frame(granted.key, granted.epoch, failure_reason="ENGINE_FAILED", failure=step.error)
    return Frame(granted.key, granted.epoch, step.seq, step.tokens, step.finish, logprobs=step.logprobs)
