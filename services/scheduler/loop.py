"""Observe, decide, act: one loop, woken by every request, every fact and every finished command. No tick."""

import asyncio
from collections.abc import Callable

import structlog
from prometheus_client import Counter

from mesh.clients.store import StoreClient
from mesh.clients.worker import WorkerClient
from mesh.clock import Clock
from mesh.errors import MeshError, NoRoom, Unreachable, Unsuitable
from mesh.explanation import Explanation
from mesh.facts import Kind, Member
from mesh.moves import Moved, Relocated
from mesh.requests import MoveKind, RequestState
from mesh.state.catalogue import unknown_model
from mesh.state.learnt import Notebook
from mesh.state.mirror import Mirror
from mesh.state.reservations import Reservations
from policy.actions import Action, Load, MakeWay, Move, Place, Prefetch, RefusalReason, Refuse, Unload, Yield
from policy.books import Books
from policy.decide import decide
from policy.knobs import Knobs
from services.scheduler.act import Commands
from services.scheduler.asked import AskedMoves
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

log = structlog.get_logger()
NEWS_S = 0.5
REFUSED = Counter("whimbrel_refusals_total", "Requests that were turned away, by why.", ["reason"])


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
        self._places_known = asyncio.Event()  # of this lead, which places are held; or that there is none
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Something has changed: look again."""
        self._woken.set()

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
        Unreachable where this process stands by."""
        ended = (await self._taken_over()).ask(request_id, to_worker_id, kind)
        self.wake()
        return await ended

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
                    await self._loop(books, commands, prefetching, notes, self._asked)
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
        self._relocating = self._asked = None
        self._places_known.set()

    async def _take_over(self, commands: Commands, reserving: Reserving) -> None:
        """What former leaders left: loads that are under way, and places that running requests hold."""
        for left in await reserving.inherited():
            commands.inherit(left)
            reserving.strike_out(left)
        await self.held.known()

    async def _loop(
        self, books: Books, commands: Commands, prefetching: Prefetching, notes: Notes, asked: AskedMoves
    ) -> None:
        relocating = asked.relocating
        while True:
            self._woken.clear()
            now = self._clock.now()
            relocating.look(now)
            books.observe(self._mirror.facts)
            view = books.view(now)
            decision = decide(view, now, self._knobs)
            for action in decision.actions:
                self._act(action, commands, prefetching, relocating)
            books.claimed(decision.claims)
            books.look_again(decision.again)
            books.queues.be_patient(decision.patience)
            stirred = books.stirred(view)
            commands.end_unwanted_loads(view, stirred)
            prefetching.end_unwanted()
            self.room.tell(stirred)
            notes.look()
            asked.look()
            await self._sleep(decision.look_again_s, relocating.next_s())

    async def _sleep(self, *moments: float | None) -> None:
        """Until something changes, or time alone would change what is done: at any of these moments."""
        until_s = min((at_s for at_s in moments if at_s is not None), default=None)
        if until_s is None or self._woken.is_set():
            await self._woken.wait()
            return
        alarm = asyncio.get_running_loop().call_later(max(0.0, until_s - self._clock.now()), self._woken.set)
        try:
            await self._woken.wait()
        finally:
            alarm.cancel()

    def _act(self, action: Action, commands: Commands, prefetching: Prefetching, relocating: Relocating) -> None:
        match action:
            case Place(number, spot):
                self.room.place(number, spot, self._member(Kind.WORKER, spot.worker_id))
            case Refuse(number, reason, retry_after_s):
                self.room.refuse(number, self._refusal(number, reason, retry_after_s))
            case Yield(spots, to):
                commands.books.yielding.add(spots, to)
            case MakeWay(plan):
                commands.books.moving.add(plan)
            case Move(number, to, kind, reason):
                relocating.begin(number, to, kind, reason)
            case Load() | Unload() if self._mirror.stale:
                commands.books.touch_all()  # Redis is gone: nobody knows whether we still lead, so what is loaded stays
            case Load():
                commands.load(action, self._member(Kind.STORE, action.store_id).address)
            case Unload():
                commands.unload(action)
            case Prefetch():
                prefetching.begin(action)

    def _member(self, kind: Kind, member_id: str) -> Member:
        return self._mirror.facts.members[f"{kind}/{member_id}"]

    def _refusal(self, number: str, reason: RefusalReason, retry_after_s: float | None) -> MeshError:
        asked = self.room.waiting[number].waiting
        model, tenant, knobs = asked.model, asked.tenant, self._knobs
        REFUSED.labels(reason).inc()
        if reason is RefusalReason.UNKNOWN_MODEL:
            return unknown_model(model)
        limits = {"hold_s": knobs.hold_s, "most": knobs.max_waiting, "share": knobs.tenant_requests}
        text = REFUSALS[reason].format(model=model, tenant=tenant, **limits)
        metadata = {"model": model}
        if reason is RefusalReason.TENANT_FULL:
            metadata |= {"tenant": tenant, "limit": str(knobs.tenant_requests)}
        return REFUSED_AS.get(reason, NoRoom)(text, reason=reason, retry_after_s=retry_after_s, metadata=metadata)


REFUSED_AS: dict[RefusalReason, type[MeshError]] = {
    RefusalReason.NO_CHECKPOINT: Unreachable,
    RefusalReason.VERSION_GONE: Unsuitable,
}
REFUSALS = {
    RefusalReason.TOO_LARGE: "no worker has enough memory for {model!r}, even when empty; add a larger one",
    RefusalReason.QUEUE_FULL: "{most} requests wait for {model!r} already; try again later or add workers",
    RefusalReason.TENANT_FULL: "tenant {tenant!r} has {share} requests already, the most at once; wait for one to end",
    RefusalReason.HELD_TOO_LONG: "no place for {model!r} within {hold_s:.0f} s; try again later or add workers",
    RefusalReason.TOO_LATE: "a first token of {model!r} cannot be expected in time; allow more, or keep one ready",
    RefusalReason.NO_CHECKPOINT: "no store that is alive holds the checkpoint of {model!r}",
    RefusalReason.VERSION_GONE: "the version of {model!r} that began the answer is nowhere any more; ask anew",
}
