"""The targets' end of moves: the requests that are expected here. Once granted, they are the relay's."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial

import structlog

from mesh.clients.receive_wire import Opening, Part
from mesh.errors import DataLoss, MeshError, Unsuitable
from mesh.faults import Point, reach
from mesh.moves import Expect, MoveFailed, Reserved
from mesh.requests import MoveKind
from services.worker.engine.engine import Engine
from services.worker.engine.errors import EngineError, NotMovable
from services.worker.engine.mover import Mover
from services.worker.engine.request import EngineRequest, TokenStep
from services.worker.guides import Guides
from services.worker.moving.blocks_in import BlocksIn
from services.worker.moving.expected import Expected, Say
from services.worker.moving.failures import failed, is_fault
from services.worker.moving.intake import Intake, over
from services.worker.moving.lease import Lease
from services.worker.naming import replica_name
from services.worker.requests import engine_request

log = structlog.get_logger()


class Incoming:
    """By their moves. Lives on the event loop. What is expected is freed when nothing is heard of it for `lease_s`."""

    def __init__(self, engine: Engine, guides: Guides, lease_s: float) -> None:
        self._engine, self._mover, self._guides, self._lease_s = engine, Mover(engine), guides, lease_s
        self._expected: dict[str, Expected] = {}
        self._by_engine_id: dict[str, Expected] = {}

    def expect(self, expect: Expect, line: object, say: Say) -> None:
        """Makes room, and says Reserved or MoveFailed; said again, it does so again."""
        expected = self._expected.get(expect.move_id)
        if expected is None:
            expected = Expected(expect, line, say)
            self._expected[expected.move_id] = self._by_engine_id[expected.engine_id] = expected
            expected.lease = Lease(self._lease_s, partial(self._lapsed, expected))
        expected.heard()
        if expected.task is None or expected.task.done():
            expected.task = asyncio.create_task(self._prepared(expected), name=f"expecting {expected.move_id}")

    def abandon(self, move_id: str) -> None:
        """Frees what has come of it; nothing if it is not expected."""
        if expected := self._take(move_id):
            self._engine.cancel(expected.engine_id)

    def claim(self, move_id: str, key: str) -> str:
        """The engine's name for what has come of a request, which is the caller's from now on; empty if it is none."""
        expected = self._expected.get(move_id)
        if expected is None or expected.expect.request.key != key:
            return ""
        self._take(move_id)
        return expected.engine_id

    def line_ended(self, line: object) -> None:
        """Abandons what its gateway announced."""
        for move_id in [one.move_id for one in self._expected.values() if one.line is line]:
            self.abandon(move_id)

    def ended(self, step: TokenStep) -> None:
        """A request of the engine has ended; if it is one that is expected, its move fails."""
        if (expected := self._by_engine_id.get(step.request_id)) and step.finish:
            why = step.error or "what has come of it was dropped"
            self._give_up(expected, MoveFailed(expected.move_id, "GAVE_WAY", why))

    async def receive(self, parts: AsyncIterator[Part]) -> AsyncGenerator[int, None]:
        """One stream of another worker: bytes written so far, until all is there. Raises MeshErrors."""
        opening = await anext(parts, None)
        if not isinstance(opening, Opening):
            raise DataLoss("Receive begins with the move that it is for", reason="BAD_STREAM")
        expected = self._expected.get(opening.move_id)
        if expected is None or expected.incoming is None:
            raise over(opening.move_id)
        try:
            expected.incoming.check_layout(opening.layout)
            async with aclosing(Intake(expected, parts).written()) as written:
                async for count_bytes in written:
                    yield count_bytes
        except (MeshError, EngineError) as error:
            event = failed(expected.move_id, error)
            self._give_up(expected, event)
            raise Unsuitable(event.message, reason=event.reason) from error

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
        if expected.expect.kind is not MoveKind.KV:
            raise NotMovable("this worker computes nothing ahead; have the KV sent")
        if expected.incoming is None:
            room = await asyncio.wrap_future(self._mover.reserve(request))
            expected.incoming = BlocksIn(request, room, self._mover)
        await reach(Point.TARGET_RESERVES)
        there = expected.incoming.room.blocks_there
        fingerprint = self._engine.stats().replicas[request.replica].fingerprint
        tokens = there * expected.incoming.room.block_tokens
        expected.say(Reserved(expected.move_id, there, tokens, fingerprint))

    async def _request(self, expected: Expected) -> EngineRequest:
        """As the engine knows it, its guide compiled."""
        grant = expected.expect.request
        guide = grant.sampling.guide
        grammar = await self._guides.grammar(replica_name(grant.model, grant.digest), guide) if guide else None
        return engine_request(grant, expected.engine_id, grammar)

    def _lapsed(self, expected: Expected) -> None:
        why = f"nothing was heard of it for {self._lease_s:g} s"
        self._give_up(expected, MoveFailed(expected.move_id, "LEASE_LAPSED", why))

    def _give_up(self, expected: Expected, event: MoveFailed) -> None:
        """Frees it and says so, unless that has been done."""
        if self._expected.get(expected.move_id) is expected:
            self.abandon(expected.move_id)
            expected.say(event)

    def _take(self, move_id: str) -> Expected | None:
        expected = self._expected.pop(move_id, None)
        if expected:
            del self._by_engine_id[expected.engine_id]
            expected.end()
        return expected
