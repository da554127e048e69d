"""Whose turn it is to read: one set of threads for all that is read, fair by bytes, loads before prefetches."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, Self


class Piece(Protocol):
    """What one thread does in one turn."""

    @property
    def bytes(self) -> int:
        """How much it counts."""

    def run(self) -> None:
        """Reads it."""


class Work(Protocol):
    """What takes turns."""

    @property
    def exhausted(self) -> bool:
        """Whether `take` has handed out everything."""

    def take(self) -> Piece | None:
        """The next piece; None when there is none, or none yet. Called by one thread at a time; must not block."""


class Urgency:
    """Whether a request waits for the bytes. A prefetch becomes urgent when one does, and stays so."""

    def __init__(self, *, urgent: bool) -> None:
        self.urgent = urgent
        self._promoted = asyncio.Event()

    def promote(self) -> None:
        """Somebody waits from now on."""
        self.urgent = True
        self._promoted.set()

    async def promotion(self) -> None:
        """Returns when what was not urgent has become so."""
        await self._promoted.wait()


class Ticket:
    """A work among the others. `failure` is what ended it early."""

    def __init__(self, work: Work, urgency: Urgency, ended: Callable[[], None]) -> None:
        self.work, self.urgency, self.ended = work, urgency, ended
        self.failure: BaseException | None = None
        self.had_bytes = 0  # its place in the order, not a count: it skips what it had no use for
        self.running = 0
        self.served_as: bool | None = None  # as urgent or not; None: it had nothing to hand out when last asked


class Turns:
    """`threads` readers, while the context is open. Each takes the next piece of whoever has had the fewest bytes."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._changed = threading.Condition()
        self._tickets: list[Ticket] = []  # those with something left to hand out
        self._now_bytes = {True: 0, False: 0}  # where the one served last, urgent or not, stood: newcomers begin there
        self._closed = False

    def __enter__(self) -> Self:
        self._readers = ThreadPoolExecutor(self._threads, thread_name_prefix="reader")
        self._runs = [self._readers.submit(self._read) for _ in range(self._threads)]
        return self

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._readers.shutdown()
        for run in self._runs:
            run.result()

    def add(self, work: Work, urgency: Urgency, ended: Callable[[], None]) -> Ticket:
        """Lets a work take turns.

        `ended` is called once, on any thread and under our lock, so it must only signal: when all is read, or when
        after a failure or `stop` nothing of it is being read any more.
        """
        ticket = Ticket(work, urgency, ended)
        with self._changed:
            self._tickets.append(ticket)
            self._changed.notify_all()
        return ticket

    def wake(self) -> None:
        """Some work has a piece to hand out again."""
        with self._changed:
            self._changed.notify_all()

    def stop(self, ticket: Ticket) -> None:
        """No more turns for it; one that has ended stays so."""
        with self._changed:
            self._retire(ticket)

    def _read(self) -> None:
        """A reader's life."""
        done: Ticket | None = None
        while turn := self._next(done):
            done, piece = turn
            try:
                piece.run()
            except BaseException as error:  # raised again by who waits for the work
                self._failed(done, error)

    def _next(self, done: Ticket | None) -> tuple[Ticket, Piece] | None:
        """Gives `done` back; then the next turn, as soon as there is one, or None when the readers are to go home."""
        with self._changed:
            if done:
                done.running -= 1
                self._end_if_over(done)
            while not self._closed:
                if turn := self._pick():
                    return turn
                self._changed.wait()
        return None

    def _pick(self) -> tuple[Ticket, Piece] | None:
        for ticket in sorted(self._tickets, key=lambda t: (not t.urgency.urgent, t.had_bytes)):
            if piece := self._taken(ticket):
                self._charge(ticket, piece.bytes)
                return ticket, piece
            ticket.served_as = None
            if ticket.failure or ticket.work.exhausted:
                self._retire(ticket)
        return None

    def _taken(self, ticket: Ticket) -> Piece | None:
        try:
            return ticket.work.take()
        except BaseException as error:  # a fault of that work's, which is not to cost the others a reader
            ticket.failure = error
            return None

    def _charge(self, ticket: Ticket, count: int) -> None:
        """Who comes, or comes back, or has become urgent, is owed nothing for the time before."""
        urgent = ticket.urgency.urgent
        if ticket.served_as is not urgent:
            ticket.had_bytes = max(ticket.had_bytes, self._now_bytes[urgent])
            ticket.served_as = urgent
        self._now_bytes[urgent] = ticket.had_bytes
        ticket.had_bytes += count
        ticket.running += 1

    def _failed(self, ticket: Ticket, error: BaseException) -> None:
        with self._changed:
            ticket.failure = ticket.failure or error
            self._retire(ticket)

    def _retire(self, ticket: Ticket) -> None:
        if ticket in self._tickets:
            self._tickets.remove(ticket)
            self._end_if_over(ticket)

    def _end_if_over(self, ticket: Ticket) -> None:
        if not ticket.running and ticket not in self._tickets:
            ticket.ended()
