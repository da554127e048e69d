"""Moves under way: a slot is held for each at its target, its gateway drives it, and tells how it ended."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter, Histogram

from mesh.clock import Clock
from mesh.errors import MeshError, Unreachable, Unsuitable
from mesh.facts import Kind
from mesh.moves import Moved, Relocated, Relocation
from mesh.requests import MoveKind, Placement, StartKind, StartTimes
from mesh.state.mirror import Mirror
from policy.actions import MoveReason
from policy.books import Books
from policy.knobs import Knobs
from policy.moved import move_ended
from policy.relocation import route
from policy.view import Spot
from services.scheduler.waiting import WaitingRoom

log = structlog.get_logger()
MOST_S = 120.0  # a move that nobody has heard of for so long holds no slot any more
AT_ONCE = StartTimes(0.0, 0.0)
ENDED = Counter(
    "whimbrel_relocations_total",
    "Moves that gateways were asked for, by why, how, and how they ended.",
    ["reason", "kind", "outcome"],
)
TOOK = Histogram(
    "whimbrel_relocation_seconds",
    "From a move's decision until its gateway said that it is done.",
    ["kind"],
    buckets=(0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120),
)


@dataclass(frozen=True, slots=True)
class Underway:
    """One move. `ended` is for who asked for it, if anybody did."""

    move_id: str
    number: str
    source: Spot
    target: Spot
    reason: MoveReason
    began_s: float
    ended: asyncio.Future[Relocated] | None


@dataclass(slots=True)
class Relocating:
    """Of one leadership, under its fence."""

    room: WaitingRoom
    books: Books
    mirror: Mirror
    clock: Clock
    knobs: Knobs
    fence: int
    moves: dict[str, Underway] = field(default_factory=dict)  # by id
    overdue: dict[str, Underway] = field(default_factory=dict)  # their slots are given up, and they may yet end well
    _ids: Iterator[int] = field(default_factory=itertools.count)

    def of_request(self, number: str) -> Underway | None:
        """Its move, if it moves."""
        return next((one for one in self.moves.values() if one.number == number), None)

    def begin(
        self,
        number: str,
        to: Spot,
        kind: MoveKind | None,
        reason: MoveReason,
        ended: asyncio.Future[Relocated] | None = None,
    ) -> None:
        """Holds a slot there, and tells the request's gateway. Nothing, if it has ended or moves already."""
        guest, source = self.room.guests.get(number), self.books.spot_of(number)
        target = self.mirror.facts.members.get(f"{Kind.WORKER}/{to.worker_id}")
        if guest is None or source is None or target is None or self.of_request(number):
            return
        now = self.clock.now()
        one = Underway(f"{self.fence}.{next(self._ids)}", number, source, to, reason, now, ended)
        self.moves[one.move_id] = one
        self.books.moves(number, to, now)
        place = Placement(target.id, target.address, target.fence, to.digest, StartKind.WARM, AT_ONCE)
        guest.relocate(Relocation(one.move_id, place, reason, kind))
        log.info("move", move=one.move_id, request=guest.request_id, source=source.worker_id, to=target.id, why=reason)

    def heard(self, moved: Moved) -> None:
        """How a move ended, as its gateway says; said again, or of one that is not ours, it changes nothing."""
        one = self.moves.pop(moved.move_id, None) or self.overdue.pop(moved.move_id, None)
        if one is None:
            return
        if moved.moved:
            self._learn(one, moved)
            self.room.went_on(one.number, one.target)
        else:
            self.books.stays(one.number)
            log.warning("move failed", move=one.move_id, reason=moved.failure_reason, error=moved.failure)
        self._note(one, moved)

    def next_s(self) -> float | None:
        """When the next takes too long."""
        return min((one.began_s + MOST_S for one in self.moves.values()), default=None)

    def look(self, now: float) -> None:
        """Ends the moves of requests that have ended, and gives up the slots of those that take too long."""
        for one in [*self.moves.values(), *self.overdue.values()]:
            if one.number not in self.room.guests:
                self._gone(one)
            elif now >= one.began_s + MOST_S:
                self._give_up(one)

    def close(self, why: MeshError) -> None:
        """Somebody else leads: nobody will hear how they end."""
        for one in self.moves.values():
            _fail(one, why)
        self.moves.clear()

    def _learn(self, one: Underway, moved: Moved) -> None:
        """How long it took teaches how long others will, as long as both ends are known."""
        run, source = self.books.runs.get(one.source, {}).get(one.number), self.books.index.replicas.seat(one.source)
        if run and source and one.target.worker_id in self.books.index.workers:
            way = route(self.books.glance(), source, one.target)
            move_ended(self.books.rates, way, moved, run, now=self.clock.now(), knobs=self.knobs)

    def _gone(self, one: Underway) -> None:
        self.moves.pop(one.move_id, None)
        if not self.overdue.pop(one.move_id, None):
            ENDED.labels(one.reason, "", "request ended").inc()
        _fail(one, request_ended())

    def _give_up(self, one: Underway) -> None:
        if self.moves.pop(one.move_id, None) is None:
            return
        self.overdue[one.move_id] = one
        self.books.stays(one.number)
        ENDED.labels(one.reason, "", "given up").inc()
        log.warning("move given up: its gateway says nothing", move=one.move_id, source=one.source.worker_id)
        _fail(one, Unreachable("its gateway does not say how the move goes; it may yet be done", reason="MOVE_OVERDUE"))

    def _note(self, one: Underway, moved: Moved) -> None:
        kind = moved.kind or ""
        ENDED.labels(one.reason, kind, "moved" if moved.moved else moved.failure_reason).inc()
        if not moved.moved:
            _fail(one, Unsuitable(f"the request stays: {moved.failure}", reason=moved.failure_reason))
            return
        TOOK.labels(kind).observe(self.clock.now() - one.began_s)
        if one.ended and not one.ended.done():
            one.ended.set_result(Relocated(one.source.worker_id, one.target.worker_id, moved))


def request_ended() -> Unsuitable:
    """Why there is nothing to move any more."""
    return Unsuitable("the request ended before it had moved", reason="REQUEST_ENDED")


def _fail(one: Underway, why: MeshError) -> None:
    if one.ended and not one.ended.done():
        one.ended.set_exception(why)
