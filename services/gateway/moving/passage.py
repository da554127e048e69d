"""One answer's way from its worker to another: prepared, copied or computed, granted there, released here.

Only the grants change who owns it. All else may fail, be late or be lost: then it runs on where it is, or is granted
again to whoever had it.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from mesh.faults import Point, reach
from mesh.moves import SOURCE_ENDED, Abandon, AnswerMove, Expect, MoveEvent, MoveFailed, Ready, Reserved, Send, Stopped
from mesh.requests import MoveKind
from services.gateway.moving.limits import MoveLimits
from services.gateway.moving.tenure import Tenure
from services.gateway.moving.way import FINISHED, Over, Party, Way
from services.gateway.owners import Handover

OTHER_WAY = frozenset({"NOT_MOVABLE", "LAYOUT_MISMATCH"})
T = TypeVar("T", Reserved, Ready)
OTHER = {MoveKind.KV: MoveKind.TOKENS, MoveKind.TOKENS: MoveKind.KV}


class Passage:
    """Of one answer."""

    def __init__(self, tenure: Tenure, way: Way, limits: MoveLimits, party: Party) -> None:
        self._tenure, self._journal, self._way, self._limits, self._party = tenure, tenure.journal, way, limits, party
        self._source, self._source_epoch = tenure.line, tenure.epoch
        self._move_id = f"{way.move_id}/{tenure.journal.owners.index}"
        self._heard: asyncio.Queue[MoveEvent | None] = asyncio.Queue()  # None: look at journal and party
        party.wake.append(self._wake)
        self._reserved = self._stopped = self._ready = False
        self._may_stand = False  # the source, though nobody has said so yet
        self._limit = asyncio.timeout(limits.whole_s)
        self.kind, self.fingerprint = way.kind, ""  # of the target's numerics
        self.tokens = self.tokens_there = self.bytes_sent = 0
        self.ready_s = self.granted_s = 0.0  # when, in the loop's time
        self.moved = False

    async def run(self) -> None:
        """Returns when the target has spoken, or the answer has ended; raises Over when it stays, or goes back."""
        with self._heeded(), ExitStack() as listening:
            try:
                await self._readied(listening)
            except Over as over:
                if not self._goes_anyway():
                    self._give_back()
                    if not self._tenure.over:
                        self._party.fail(over)
                    raise
                self._source.command(Abandon(self._move_id))
            except asyncio.CancelledError:
                self._give_back()
                raise
            await self._carried_over()

    @property
    def told(self) -> AnswerMove | None:
        """What the client is told of it, once it has moved."""
        return next(reversed(self._journal.owners.moves), None) if self.moved else None

    @property
    def _stands(self) -> str:
        """How far it has come, for whoever asks why it came no further."""
        if not self._reserved:
            return f"the target has not made room for it ({self.kind})"
        if self._stopped:
            return f"the source has stopped, and the target is not ready ({self.kind})"
        return f"the target has not all of it yet ({self.kind})"

    def _wake(self) -> None:
        self._heard.put_nowait(None)

    def _goes_anyway(self) -> bool:
        """Whether the target is granted it though it is not ready: the others are there, or the source is lost."""
        lost = self._reserved and not self._source.up
        return not self._tenure.over and self._way.target.up and (lost or self._party.granted)

    @contextmanager
    def _heeded(self) -> Iterator[None]:
        """Hears of what the journal accepts, and keeps its failures from its reader, who could not mend them."""
        self._journal.heed = self._wake
        self._journal.held = True
        try:
            yield
        finally:
            self._journal.heed = lambda: None
            self._journal.let_go()

    async def _readied(self, listening: ExitStack) -> None:
        """Until the target is ready, one way or the other."""
        try:
            async with self._limit:
                try:
                    await self._by(listening)
                except Over as over:
                    if over.reason not in OTHER_WAY or self._stopped:
                        raise
                    self._turn()
                    await self._by(listening)
        except TimeoutError as error:
            raise self._too_long() from error

    def _turn(self) -> None:
        """Tries the other kind, as a move of its own."""
        self._give_back()
        self.kind = OTHER[self.kind]
        self._move_id = f"{self._move_id}/{self.kind}"
        self._reserved = False

    async def _by(self, listening: ExitStack) -> None:
        for line in (self._source, self._way.target):
            listening.enter_context(line.moving(self._move_id, self._heard.put_nowait))
        await reach(Point.GATEWAY_EXPECTS)
        self._expect()
        reserved = await self._next(Reserved)
        self._reserved, self.fingerprint, self.tokens_there = True, reserved.fingerprint, reserved.tokens_there
        await (self._copied(reserved) if self.kind is MoveKind.KV else self._computed())
        self._ready, self.ready_s = True, asyncio.get_running_loop().time()

    def _expect(self) -> None:
        self._way.target.command(Expect(self._move_id, self._journal.standing(), self.kind))

    async def _copied(self, reserved: Reserved) -> None:
        """The source sends while it decodes, and stops for the last of it."""
        await reach(Point.GATEWAY_SENDS)
        send = Send(self._move_id, self._journal.key, self._source_epoch, self._way.address, reserved.blocks_there)
        self._may_stand = True
        self._source.command(send)
        await self._next(Ready)

    async def _computed(self) -> None:
        """In rounds, each of the tokens that came in the one before, until these are few."""
        there = -1
        for _ in range(self._limits.rounds):
            ready = await self._next(Ready)
            lag = len(self._journal.question.prompt) + len(self._journal.tokens) - ready.tokens
            if lag <= self._limits.largest_gap or ready.tokens <= there:
                return
            there = ready.tokens
            self._expect()
        await self._next(Ready)

    async def _next(self, wanted: type[T]) -> T:
        """The next word of that kind; raises Over when either end gives up, or the answer ends."""
        while not self._tenure.over:
            self._check()
            event = await self._heard.get()
            if isinstance(event, wanted) and event.move_id == self._move_id:
                return event
            await self._note(event)
        raise Over(FINISHED, f"the answer ended before it had moved: {self._stands}")

    def _check(self) -> None:
        if failure := self._journal.failure:
            raise Over(failure.reason, failure.message)
        if self._party.failure and not self._party.granted:
            raise self._party.failure

    async def _note(self, event: MoveEvent | None) -> None:
        match event:
            case MoveFailed(move_id, reason, message) if move_id == self._move_id:
                if reason != SOURCE_ENDED:  # what the source says of that, or of the answer's end, is on its way
                    raise Over(reason, message)
            case Stopped(move_id, _, bytes_sent) if move_id == self._move_id and not self._stopped:
                self._stopped, self.bytes_sent = True, bytes_sent
                await reach(Point.GATEWAY_STOPPED)
                self._limit.reschedule(asyncio.get_running_loop().time() + self._limits.stop_s)

    async def _carried_over(self) -> None:
        """Grants it to the target, and releases the source when that has spoken."""
        await reach(Point.GATEWAY_READY)
        if self._tenure.over:
            self._abandon()
            return
        if not self._ready:
            self.kind, self.ready_s = MoveKind.REBUILT, asyncio.get_running_loop().time()
        tokens = len(self._journal.tokens)
        self.tokens = tokens + len(self._journal.question.prompt)
        handover = Handover(self._way.reason, self.kind, self._way.exact_at(self.fingerprint))
        self._tenure.pass_to(self._way.target, handover, self._move_id)
        self._way.granted(self.fingerprint)
        self._party.granted, self.granted_s = True, asyncio.get_running_loop().time()
        await reach(Point.GATEWAY_GRANTED)
        try:
            await self._spoken(tokens)
            await reach(Point.GATEWAY_RELEASES)
        except Over:
            if self._source.up:
                self._tenure.pass_to(self._source)
            raise
        finally:
            if self._tenure.line is not self._source:
                self._source.cancel(self._journal.key, self._source_epoch)

    async def _spoken(self, tokens: int) -> None:
        while not self._tenure.over and len(self._journal.tokens) == tokens:
            if failure := self._journal.failure:
                raise Over(failure.reason, failure.message)
            event = await self._heard.get()
            if isinstance(event, Stopped):
                self.bytes_sent = event.bytes_sent
        self.moved = len(self._journal.tokens) > tokens or self._journal.finish is not None

    def _give_back(self) -> None:
        """Nobody has been granted it since. The source goes on, or is granted it again once it has been told to send:
        it may have stopped, and not have said so, or not be heard any more."""
        self._abandon()
        if self._may_stand and self._source.up and not self._tenure.over:
            self._tenure.pass_to(self._source)
            self._source_epoch, self._may_stand = self._tenure.epoch, False

    def _abandon(self) -> None:
        for line in (self._source, self._way.target):
            line.command(Abandon(self._move_id))

    def _too_long(self) -> Over:
        if self._stopped:
            return Over("STOOD_STILL", f"the target was not ready {self._limits.stop_s} s after the source had stopped")
        return Over("MOVE_TOO_LONG", f"the move was not ready within {self._limits.whole_s} s: {self._stands}")
