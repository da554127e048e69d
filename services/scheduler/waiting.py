"""Requests at the scheduler: each holds a ticket from Assign's first moment to its last."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from mesh.clock import Clock
from mesh.errors import MeshError
from mesh.requests import LoadProgress, Phase, Placement, Progress, StartKind, StartTimes
from policy.view import Spot, Waiting


class Ticket:
    """One request. Events come out in order: progress, then a placement or an error; None ends a held place."""

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self.spot: Spot | None = None
        self.events: asyncio.Queue[Progress | Placement | MeshError | None] = asyncio.Queue()
        self._load_began_s: float | None = None
        self._load_kind = StartKind.WARM
        self._last: Progress | None = None

    def tell(self, progress: Progress) -> None:
        """Sends progress, unless it says nothing new."""
        if progress != self._last:
            self._last = progress
            self.events.put_nowait(progress)

    def loading(self, progress: LoadProgress, began_s: float) -> None:
        """Sends how far the load has come that this request waits for."""
        self._load_began_s = max(began_s, self.waiting.since_s)
        self._load_kind = StartKind(progress.tier)
        self.tell(Progress(Phase.LOADING, load=progress))

    @property
    def load_began(self) -> bool:
        """Whether it waits for a load under way."""
        return self._load_began_s is not None

    def place(self, spot: Spot, address: str, now_s: float) -> None:
        """Ends the wait."""
        self.spot = spot
        load_began_s = now_s if self._load_began_s is None else self._load_began_s
        times = StartTimes(load_began_s - self.waiting.since_s, now_s - load_began_s)
        self.events.put_nowait(Placement(spot.worker_id, address, self._load_kind, times))

    def fail(self, error: MeshError) -> None:
        """Ends the wait with an error."""
        self.events.put_nowait(error)


class WaitingRoom:
    """All tickets: those that wait, in order of arrival, and how many hold a place where."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self._open: set[Ticket] = set()
        self.waiting: dict[str, Ticket] = {}
        self.placed: Counter[Spot] = Counter()

    @contextmanager
    def ticket(self, model: str, excluded: frozenset[str]) -> Iterator[Ticket]:
        """A ticket that waits, then holds a place, until the block ends."""
        number = str(next(self._numbers))  # ours: clients may send one request id twice
        ticket = Ticket(Waiting(number, model, self._clock.now(), excluded))
        self.waiting[number] = ticket
        self._open.add(ticket)
        try:
            yield ticket
        finally:
            self._open.discard(ticket)
            self.waiting.pop(number, None)
            if ticket.spot:
                self._give_back(ticket.spot)

    def place(self, number: str, spot: Spot, address: str) -> None:
        """Gives a waiting request its place."""
        ticket = self.waiting.pop(number)
        self.placed[spot] += 1
        ticket.place(spot, address, self._clock.now())

    def refuse(self, number: str, error: MeshError) -> None:
        """Turns a waiting request away."""
        self.waiting.pop(number).fail(error)

    def of_model(self, model: str) -> list[Ticket]:
        """Those that wait for one model."""
        return [ticket for ticket in self.waiting.values() if ticket.waiting.model == model]

    def tell_positions(self) -> None:
        """Tells each queued request how many of its model are before it."""
        before: Counter[str] = Counter()
        for ticket in self.waiting.values():
            if not ticket.load_began:
                ticket.tell(Progress(Phase.QUEUED, position=before[ticket.waiting.model]))
            before[ticket.waiting.model] += 1

    def close(self, error: MeshError) -> None:
        """Ends every stream: those that wait with an error, those that hold a place in peace."""
        for number in list(self.waiting):
            self.refuse(number, error)
        for ticket in self._open:
            ticket.events.put_nowait(None)

    def _give_back(self, spot: Spot) -> None:
        self.placed[spot] -= 1
        if not self.placed[spot]:
            del self.placed[spot]
