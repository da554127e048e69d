"""When to look: at once when a request comes; else in one loop, woken by every fact, every finished command and every
request that ends. No tick."""

import asyncio
from collections.abc import Callable

from mesh.clients.store import StoreClient
from mesh.clients.worker import WorkerClient
from mesh.clock import Clock
from mesh.errors import MeshError
from mesh.explanation import Explanation
from mesh.moves import Moved, Relocated
from mesh.requests import MoveKind, RequestState
from mesh.state.learnt import Notebook
from mesh.state.mirror import Mirror
from mesh.state.reservations import Reservations
from policy.books import Books
from policy.knobs import Knobs
from services.scheduler.act import Commands
from services.scheduler.alarm import Alarm
from services.scheduler.asked import AskedMoves
from services.scheduler.deciding import Deciding
from services.scheduler.demand_notes import demand_topic
from services.scheduler.explaining import explanation
from services.scheduler.holding import Held
from services.scheduler.learning import Learning
from services.scheduler.listing import listing
from services.scheduler.notes import Notes
from services.scheduler.prefetching import Prefetching
from services.scheduler.rate_notes import rates_topic
from services.scheduler.relocating import Relocating
from services.scheduler.reserving import Reserving
from services.scheduler.turns import Turns
from services.scheduler.waiting import Ticket, WaitingRoom, stands_by

NEWS_S = 0.5


class Scheduler:
    """The leader's loop. `room` takes requests whether or not this process leads."""

    def __init__(
        self,
        mirror: Mirror,
        workers: WorkerClient,
        stores: StoreClient,
        knobs: Knobs,
        clock: Clock,
        *,
        notebook: Notebook,
        reservations: Reservations,
    ) -> None:
        self._mirror, self._workers, self._stores, self._knobs, self._clock = mirror, workers, stores, knobs, clock
        self._notebook, self._reservations = notebook, reservations
        self.room = WaitingRoom(clock)
        self.held = Held(mirror, self.room, self.wake)
        self._learning: Learning | None = None  # while this process leads
        self._relocating: Relocating | None = None
        self._asked: AskedMoves | None = None
        self._deciding: Deciding | None = None  # once it has taken over
        self._alarm = Alarm(clock, self.wake)
        self._broken: Exception | None = None  # why it cannot decide any more
        self._places_known = asyncio.Event()  # of this lead, which places are held; or that there is none
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Something has changed: look again."""
        self._woken.set()

    def look(self, came: Ticket) -> None:
        """A request has come. It is looked at at once: a turn of the loop's would come after all that is ready to run.
        One that finds others waiting for its model waits for that turn with them."""
        if self._deciding is None or self.room.beside(came):
            self.wake()
            return
        try:
            self._look(self._deciding)
        except Exception as error:  # the lead's, which ends with it, and not the request's
            self._broken = error
            self.wake()

    def stirs(self, ended: Ticket) -> bool:
        """Whether something may come at once of it that a request has ended."""
        return ended.stirs or bool(self._asked and self._asked.asked)

    async def knows(self, model: str) -> None:
        """Gives the catalogue's news a moment to arrive: the gateway that asks may have them first."""
        await self._mirror.until(lambda facts: model in facts.models, NEWS_S)

    def explain(self, model: str) -> Explanation:
        """Why requests for a model are where they are. NotFound, and Unreachable where this process stands by."""
        if self._learning is None:
            raise stands_by()
        view = self._learning.books.glance()
        return explanation(view, model, self._learning, self._clock.now(), self._knobs)

    def moved(self, moved: Moved) -> None:
        """How a move ended. Unreachable where this process stands by."""
        if self._relocating is None:
            raise stands_by()
        self._relocating.heard(moved)
        self.wake()

    async def move(self, request_id: str, to_worker_id: str, kind: MoveKind | None) -> Relocated:
        """Has a running request go on elsewhere; returns when it does. Raises the MeshError that stands against it, and
        Unreachable where this process stands by. Whoever leaves before it begins has asked nothing."""
        ended = (await self._taken_over()).ask(request_id, to_worker_id, kind)
        self.wake()
        try:
            return await ended
        except asyncio.CancelledError:
            self.wake()
            raise

    async def requests(self) -> list[RequestState]:
        """Those that wait or run, the oldest first. Unreachable where this process stands by."""
        return listing(self.room, (await self._taken_over()).books, self._clock.now())

    async def _taken_over(self) -> AskedMoves:
        """The leader's, once it knows which places are held."""
        if self._relocating:
            await self._places_known.wait()
        if self._asked is None:
            raise stands_by()
        return self._asked

    async def lead(self, fence: int) -> None:
        """Decides until cancelled; commands under way are cancelled with it."""
        books = Books(self._knobs.tenant_weights)
        notes = Notes(self._notebook, fence, [rates_topic(books.rates), demand_topic(books.demand, self._clock)])
        self._learning = learning = Learning(books, self._clock, self._knobs)
        self._relocating = relocating = Relocating(self.room, books, self._mirror, self._clock, self._knobs, fence)
        self._places_known.clear()
        self._broken = None
        self.room.open(books)
        try:
            with self._mirror.watching() as self._woken:
                async with asyncio.TaskGroup() as group:
                    await notes.recall()
                    group.create_task(notes.keep(), name="notes")
                    reserving = Reserving(self._reservations, fence)
                    group.create_task(reserving.run(), name="reservations")
                    command = (self._workers, self._mirror, self.room, books, group, fence)
                    turns = Turns(books, self._clock, self._knobs)
                    commands = Commands(*command, self._clock, self._knobs, self.wake, learning, reserving, turns)
                    prefetching = Prefetching(
                        self._stores, self._mirror, books, group, self._clock, self._knobs, self.wake
                    )
                    await self._take_over(commands, reserving)
                    moves = (commands, relocating, self._clock, self._knobs)
                    self._asked = AskedMoves(self.room, books, self._mirror, *moves)
                    self._places_known.set()
                    await self._loop(Deciding(commands, prefetching, notes, self._asked))
        finally:
            self._learning = None
            self.close(stands_by)

    def close(self, why: Callable[[], MeshError]) -> None:
        """Lets nobody in any more, and ends every stream."""
        self.room.close(why)
        self.held.close()
        for moves in (self._relocating, self._asked):
            if moves:
                moves.close(why())
        self._relocating = self._asked = self._deciding = None
        self._alarm.off()
        self._places_known.set()

    async def _take_over(self, commands: Commands, reserving: Reserving) -> None:
        """What former leaders left: loads that are under way, and places that running requests hold."""
        for left in await reserving.inherited():
            commands.inherit(left)
            reserving.strike_out(left)
        await self.held.known()

    async def _loop(self, deciding: Deciding) -> None:
        self._deciding = deciding
        while self._broken is None:
            self._look(deciding)
            while not self._woken.is_set():  # whoever came meanwhile has looked at all that there was
                await self._woken.wait()
        raise self._broken

    def _look(self, deciding: Deciding) -> None:
        self._woken.clear()
        self._alarm.set(deciding.look())
