"""The sources' end of moves: the requests that are on their way out of this worker. Until they are granted again, or
cancelled, they are the relay's all the while."""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from mesh.faults import Point, reach
from mesh.moves import Send
from mesh.requests import MoveKind
from services.worker.engine.departures import Lap
from services.worker.engine.engine import Engine
from services.worker.engine.mover import Mover
from services.worker.moving import measures
from services.worker.moving.departure import Departure
from services.worker.moving.expected import Say
from services.worker.moving.failures import failed, is_fault
from services.worker.moving.limits import MoveLimits
from services.worker.moving.pace import Pace
from services.worker.moving.state_departure import StateDeparture

log = structlog.get_logger()


class Outgoing:
    """By their moves. Lives on the event loop."""

    def __init__(self, engine: Engine, limits: MoveLimits, clock: Callable[[], float]) -> None:
        self.pace = Pace(limits.bytes_s, clock)
        self._mover, self._limits, self._clock = Mover(engine), limits, clock
        self._leaving: dict[str, tuple[str, asyncio.Task[None]]] = {}  # the engine's name, and who is at it

    def send(self, send: Send, engine_id: str, say: Say) -> None:
        """Has a request leave while it goes on; says Stopped once it stands still, or MoveFailed. It leaves one way at
        a time: an earlier move of its is abandoned, and the same one goes on."""
        if send.move_id in self._leaving:
            return
        self.left(engine_id)
        task = asyncio.create_task(self._carried(send, engine_id, say), name=f"sending {send.move_id}")
        self._leaving[send.move_id] = (engine_id, task)
        task.add_done_callback(partial(self._done, send.move_id))

    def abandon(self, move_id: str) -> None:
        """Sends nothing more for it. A request that stands still for it goes on doing so."""
        if leaving := self._leaving.pop(move_id, None):
            leaving[1].cancel()

    def left(self, engine_id: str) -> None:
        """A request does not run here under this name any more, or goes elsewhere."""
        for move_id in [move_id for move_id, (name, _) in self._leaving.items() if name == engine_id]:
            self.abandon(move_id)

    async def _carried(self, send: Send, engine_id: str, say: Say) -> None:
        began_s, outcome = self._clock(), measures.ABANDONED
        try:
            await reach(Point.SOURCE_SENDS)
            leaving = await asyncio.wrap_future(self._mover.leave(engine_id, send.blocks_there))
            if isinstance(leaving, Lap):
                await Departure(send, engine_id, self._mover, self._limits, self.pace).run(leaving, say)
            else:
                await StateDeparture(send, self._limits, self.pace).run(leaving)
            outcome = measures.SENT
        except Exception as error:  # this task's outermost frame: the gateway waits for a word
            if is_fault(error):
                log.exception("a request that moves could not be sent", move=send.move_id)
            event = failed(send.move_id, error)
            outcome = event.reason
            say(event)
        finally:
            measures.ended(measures.SOURCE, MoveKind.KV, outcome, self._clock() - began_s)

    def _done(self, move_id: str, task: asyncio.Task[None]) -> None:
        if move_id in self._leaving and self._leaving[move_id][1] is task:
            del self._leaving[move_id]
