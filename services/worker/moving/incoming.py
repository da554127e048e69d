"""The targets' end of moves: the requests that are expected here. Once granted, they are the relay's."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass

import structlog

from mesh.clients.pipe import Offer
from mesh.clients.receive_wire import Opening, Part
from mesh.errors import DataLoss, MeshError, Unsuitable
from mesh.faults import Point, reach
from mesh.moves import Expect, MoveFailed, Ready, Reserved
from mesh.requests import MoveKind
from services.worker.engine.engine import Engine
from services.worker.engine.errors import EngineError, UnknownReplica
from services.worker.engine.mover import Mover
from services.worker.engine.opaque_state import StateRoom
from services.worker.engine.request import EngineRequest, TokenStep
from services.worker.guides import Guides
from services.worker.moving import measures
from services.worker.moving.blocks_in import BlocksIn
from services.worker.moving.expected import Expected, Say
from services.worker.moving.failures import failed, is_fault
from services.worker.moving.intake import Intake, over
from services.worker.moving.limits import MoveLimits
from services.worker.moving.pipe_in import PipeIn, piping
from services.worker.moving.state_in import StateIn
from services.worker.naming import replica_name
from services.worker.requests import engine_request

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes written so far. Whole blocks may come by a pipe that is offered at first, with none."""

    bytes: int
    offer: Offer | None = None


class Incoming:
    """By their moves. Lives on the event loop. What is expected is freed when nothing is heard of it for the lease."""

    def __init__(self, engine: Engine, guides: Guides, limits: MoveLimits) -> None:
        self._engine, self._mover, self._guides, self._limits = engine, Mover(engine), guides, limits
        self._expected: dict[str, Expected] = {}
        self._by_engine_id: dict[str, Expected] = {}

    def expect(self, expect: Expect, line: object, say: Say) -> None:
        """Makes room, and says Reserved, and of what is computed here Ready, too; or says MoveFailed. Said again, it
        does so again, and more may have to be computed."""
        expected = self._expected.get(expect.move_id)
        if expected and expected.expect.kind is not expect.kind:
            self.abandon(expect.move_id)
            expected = None
        if expected is None:
            expected = Expected(expect, line, say, self._limits.lease_s, lambda: self._lapsed(expect.move_id))
            self._expected[expected.move_id] = self._by_engine_id[expected.engine_id] = expected
        expected.expect = expect
        expected.lease.renew()
        if expected.prepared or expect.kind is not MoveKind.KV:
            expected.prepare(self._prepared(expected))

    def abandon(self, move_id: str, outcome: str = measures.ABANDONED) -> None:
        """Frees what has come of it; nothing if it is not expected."""
        if expected := self._take(move_id, outcome):
            self._engine.cancel(expected.engine_id)

    def claim(self, move_id: str, key: str) -> str:
        """The engine's name for what has come of a request, which is the caller's from now on; empty if it is none."""
        expected = self._expected.get(move_id)
        if expected is None or expected.expect.request.key != key:
            return ""
        self._take(move_id, measures.GRANTED)
        return expected.engine_id

    def line_ended(self, line: object) -> None:
        """Abandons what its gateway announced."""
        for move_id in [one.move_id for one in self._expected.values() if one.line is line]:
            self.abandon(move_id)

    def told(self, step: TokenStep) -> None:
        """The engine's word of a request that is not the relay's: that all of it is computed, or that it has ended."""
        expected = self._by_engine_id.get(step.request_id)
        if expected and step.finish:
            why = step.error or "what has come of it was dropped"
            self._give_up(expected, MoveFailed(expected.move_id, "GAVE_WAY", why))
        elif expected:
            expected.ready(Ready(expected.move_id, len(expected.expect.request.prompt) + step.seq))

    async def receive(self, parts: AsyncIterator[Part]) -> AsyncGenerator[Written, None]:
        """One stream of another worker, until all is there. Raises MeshErrors."""
        opening = await anext(parts, None)
        if not isinstance(opening, Opening):
            raise DataLoss("Receive begins with the move that it is for", reason="BAD_STREAM")
        expected = self._expected.get(opening.move_id)
        if expected is None or expected.incoming is None:
            raise over(opening.move_id)
        try:
            expected.incoming.check_layout(opening.layout)
            async with self._piping(expected.incoming) as pipe:
                yield Written(0, pipe.offer if pipe else None)
                async with aclosing(Intake(expected, parts, pipe).written()) as written:
                    async for count_bytes in written:
                        yield Written(count_bytes)
        except (MeshError, EngineError) as error:
            event = failed(expected.move_id, error)
            self._give_up(expected, event)
            raise Unsuitable(event.message, reason=event.reason) from error

    def _piping(self, incoming: BlocksIn | StateIn) -> AbstractAsyncContextManager[PipeIn | None]:
        if self._limits.pipe_host and isinstance(incoming, BlocksIn):
            return piping(self._limits.pipe_host, incoming)
        return nullcontext()

    async def _prepared(self, expected: Expected) -> None:
        """The task of one that is expected."""
        try:
            await self._prepare(expected)
        except Exception as error:  # its outermost frame: the gateway waits for a word
            if is_fault(error):
                log.exception("a request that moves could not be taken in", move=expected.move_id)
            self._give_up(expected, failed(expected.move_id, error))

    async def _prepare(self, expected: Expected) -> None:
        request = await self._request(expected)
        if expected.expect.kind is MoveKind.KV:
            blocks, tokens = await self._reserved(expected, request)
        else:
            expected.lease.suspend()  # until it is computed
            blocks, tokens = 0, await asyncio.wrap_future(self._mover.warm(request))
        await reach(Point.TARGET_RESERVES)
        if (stats := self._engine.stats().replicas.get(request.replica)) is None:
            raise UnknownReplica(f"{request.replica} has just been removed")
        expected.reserved(Reserved(expected.move_id, blocks, tokens, stats.fingerprint))

    async def _reserved(self, expected: Expected, request: EngineRequest) -> tuple[int, int]:
        """Blocks that are there already, and tokens in them."""
        if expected.incoming is None:
            room = await asyncio.wrap_future(self._mover.reserve(request))
            if isinstance(room, StateRoom):
                expected.incoming = StateIn(request, room, self._mover)
            else:
                expected.incoming = BlocksIn(request, room, self._mover)
        return expected.incoming.blocks_there, expected.incoming.tokens_there

    async def _request(self, expected: Expected) -> EngineRequest:
        """As the engine knows it, its guide compiled."""
        grant = expected.expect.request
        guide = grant.sampling.guide
        grammar = await self._guides.grammar(replica_name(grant.model, grant.digest), guide) if guide else None
        return engine_request(grant, expected.engine_id, grammar)

    def _lapsed(self, move_id: str) -> None:
        why = f"nothing was heard of it for {self._limits.lease_s:g} s"
        self._give_up(self._expected[move_id], MoveFailed(move_id, "LEASE_LAPSED", why))

    def _give_up(self, expected: Expected, event: MoveFailed) -> None:
        """Frees it and says so, unless that has been done."""
        if self._expected.get(expected.move_id) is expected:
            self.abandon(expected.move_id, event.reason)
            expected.say(event)

    def _take(self, move_id: str, outcome: str) -> Expected | None:
        expected = self._expected.pop(move_id, None)
        if expected:
            del self._by_engine_id[expected.engine_id]
            expected.end(outcome)
        return expected
