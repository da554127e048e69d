"""Requests at the scheduler: each holds a ticket from Assign's first moment to its last."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mesh.clock import Clock
from mesh.errors import MeshError, Unreachable
from mesh.facts import Member, Tier
from mesh.moves import Relocation
from mesh.requests import HeldPlace, LoadProgress, Phase, Placement, Progress, StartKind, StartTimes, Wish
from policy.books import Books
from policy.view import Running, Spot, Waiting
from services.scheduler.guests import Guest

START_KINDS = {
    Tier.ORIGIN: StartKind.ORIGIN,
    Tier.DISK: StartKind.DISK,
    Tier.DRAM: StartKind.DRAM,
    Tier.DEVICE: StartKind.WARM,
}


def stands_by() -> Unreachable:
    """Why a scheduler that does not lead takes no request."""
    return Unreachable("this scheduler stands by; ask the leader", reason="NOT_LEADER", retry_after_s=0.5)


def drains() -> Unreachable:
    """Why a scheduler that ends takes no request."""
    return Unreachable("the scheduler is stopping", reason="DRAINING", retry_after_s=0.5)


@dataclass(frozen=True, slots=True)
class Loading:
    """A load under way: how far it has come, and when it began."""

    spot: Spot
    progress: LoadProgress
    began_s: float


class Ticket:
    """One request. Events come out in order: progress, then a placement or an error; after a placement relocations,
    and None, which ends a held place."""

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self.events: asyncio.Queue[Progress | Placement | Relocation | MeshError | None] = asyncio.Queue()
        self.stirs = True  # at its end: whether something may come of that at once
        self._load: Loading | None = None  # that it waits for
        self._last: Progress | None = None

    @property
    def held(self) -> bool:
        """Whether it has been looked at and found no place; before that, nobody knows what it will wait for."""
        return self._last is not None

    def tell(self, progress: Progress) -> None:
        """Sends progress, unless it says nothing new."""
        if progress != self._last:
            self._last = progress
            self.events.put_nowait(progress)

    def loading(self, load: Loading) -> None:
        """Sends how far the load has come that this request waits for."""
        self._load = load
        self.tell(Progress(Phase.LOADING, load=load.progress))

    def queued(self, position: int) -> None:
        """Sends how many are before it; it waits for no load, or no longer."""
        self._load = None
        self.tell(Progress(Phase.QUEUED, position=position))

    def place(self, spot: Spot, worker: Member, now_s: float) -> None:
        """Ends the wait. A place elsewhere than where the load went is a warm one that it queued for."""
        load = self._load if self._load and self._load.spot == spot else None
        kind = START_KINDS[load.progress.tier] if load else StartKind.WARM
        load_began_s = max(load.began_s, self.waiting.since_s) if load else now_s
        times = StartTimes(load_began_s - self.waiting.since_s, now_s - load_began_s)
        place = Placement(worker.id, worker.address, worker.fence, spot.digest, kind, times)
        self.events.put_nowait(place)

    def relocate(self, relocation: Relocation) -> None:
        """It is to go on elsewhere."""
        self.events.put_nowait(relocation)

    def fail(self, error: MeshError) -> None:
        """Ends the wait with an error."""
        self.events.put_nowait(error)


class WaitingRoom:
    """All requests. The leader's books are told of each as it comes, finds its place, and goes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self._open: set[Ticket] = set()
        self._loads: dict[str, dict[Spot, Loading]] = {}  # by model
        self._closed: Callable[[], MeshError] | None = stands_by
        self._books = Books()
        self._of: dict[str, dict[str, Ticket]] = {}
        self.waiting: dict[str, Ticket] = {}
        self.guests: dict[str, Guest] = {}  # by our numbers, all that wait or have a place

    @property
    def placed(self) -> Counter[Spot]:
        """How many hold a place where."""
        return Counter({spot: len(runs) for spot, runs in self._books.runs.items()})

    def check_open(self) -> None:
        """Raises why nobody may come in, if so."""
        if self._closed:
            raise self._closed()

    @contextmanager
    def ticket(self, wish: Wish) -> Iterator[Ticket]:
        """A ticket that waits, then holds a place, until the block ends. Raises when the room is closed."""
        self.check_open()
        number = str(next(self._numbers))  # ours: clients may send one request id twice
        ticket = Ticket(_waiting(number, wish, self._clock.now()))
        self.waiting[number] = ticket
        self._of.setdefault(wish.model, {})[number] = ticket
        self.guests[number] = _guest(ticket, wish)
        self._books.arrived(ticket.waiting)
        self._open.add(ticket)
        try:
            yield ticket
        finally:
            self._open.discard(ticket)
            if number in self.waiting:
                self._take(number)
            spot = self._books.spot_of(number)
            self.give_back(number)
            ticket.stirs = spot is None or self._stirs(spot)

    def place(self, number: str, spot: Spot, worker: Member) -> None:
        """Gives a waiting request its place."""
        now_s = self._clock.now()
        self._take(number).place(spot, worker, now_s)
        self._books.placed(number, spot, now_s)

    def refuse(self, number: str, error: MeshError) -> None:
        """Turns a waiting request away."""
        self._take(number).fail(error)
        self._books.left(number, self._clock.now())

    def of_model(self, model: str) -> list[Ticket]:
        """Those that wait for one model."""
        return list(self._of.get(model, {}).values())

    def beside(self, ticket: Ticket) -> bool:
        """Whether others wait for the same model."""
        return len(self._of[ticket.waiting.model]) > 1

    def loading(self, load: Loading) -> None:
        """A load has come so far: those who wait for it are told, and so is who joins them."""
        self._loads.setdefault(load.spot.model, {})[load.spot] = load
        for ticket in self.of_model(load.spot.model):
            if ticket.held:
                ticket.loading(load)

    def loaded(self, spot: Spot) -> None:
        """The load has ended, well or not."""
        if loads := self._loads.get(spot.model):
            loads.pop(spot, None)
            if not loads:
                del self._loads[spot.model]

    def tell(self, models: Collection[str] | None = None) -> None:
        """Tells each request of these models, or of all, what it waits for: a load, or those that came before it."""
        for model in self._of.keys() if models is None else models:
            loads = list(self._loads.get(model, {}).values())
            for position, ticket in enumerate(self.of_model(model)):
                if loads:
                    ticket.loading(loads[-1])
                else:
                    ticket.queued(position)

    def open(self, books: Books) -> None:
        """Lets requests in, and tells these books of them."""
        self._books, self._closed = books, None

    def close(self, why: Callable[[], MeshError]) -> None:
        """Lets nobody in any more, and ends every stream: those that wait with an error, the others in peace."""
        self._closed = why
        for number in list(self.waiting):
            self.refuse(number, why())
        for ticket in self._open:
            ticket.events.put_nowait(None)

    def hold(self, place: HeldPlace, spot: Spot, relocate: Callable[[Relocation], None]) -> str:
        """Counts a place that another scheduler gave. Returns our number for it."""
        number, now_s, tenant = str(next(self._numbers)), self._clock.now(), place.service.tenant
        self.guests[number] = Guest(number, place.request_id, place.model, tenant, now_s, relocate, place.stays)
        asked = (place.prompt_tokens, tenant, place.service.priority, None, place.stays)
        self._books.seated(Running(number, now_s, *asked), spot)
        return number

    def went_on(self, number: str, spot: Spot) -> None:
        """A request that runs has gone on at another place, if it is another."""
        if self._books.spot_of(number) != spot:
            self._books.moved(number, spot, self._clock.now())

    def give_back(self, number: str) -> None:
        """A request has ended: its place is free again."""
        self.guests.pop(number, None)
        self._books.left(number, self._clock.now())

    def _stirs(self, spot: Spot) -> bool:
        """Whether a place that is free again there may change what is done. It does not where nobody waits or moves,
        and the replica is busy all the same: by others, or by its worker's word, whose next one is looked at."""
        seat, moving = self._books.index.replicas.seat(spot), self._books.moving
        busy = seat is not None and self._books.index.replicas.busy(seat) > 0
        return bool(not busy or self.waiting or moving.goals or moving.evacuations)

    def _take(self, number: str) -> Ticket:
        """It waits no more."""
        ticket = self.waiting.pop(number)
        tickets = self._of[ticket.waiting.model]
        del tickets[number]
        if not tickets:
            del self._of[ticket.waiting.model]
        return ticket


def _guest(ticket: Ticket, wish: Wish) -> Guest:
    waits = ticket.waiting
    return Guest(
        waits.request_id, wish.request_id, waits.model, waits.tenant, waits.since_s, ticket.relocate, wish.stays
    )


def _waiting(number: str, wish: Wish, now: float) -> Waiting:
    """As the policy sees it."""
    service = wish.service
    return Waiting(
        request_id=number,
        model=wish.model,
        since_s=now - wish.waited_s,
        excluded=wish.excluded,
        current_only=wish.current_only,
        tenant=service.tenant,
        priority=service.priority,
        deadline_s=None if service.first_token_s is None else now + service.first_token_s,
        prompt_tokens=wish.prompt_tokens,
        digest=wish.digest,
        stays=wish.stays,
    )
