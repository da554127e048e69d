"""Moves that admins ask for: each is looked at after every decision, until its request is on its way or cannot be."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from mesh.clock import Clock
from mesh.errors import MeshError, NoRoom, NotFound, Unreachable, Unsuitable
from mesh.facts import Kind
from mesh.moves import Relocated
from mesh.requests import MoveKind
from mesh.state.mirror import Mirror
from policy.actions import Load, MoveReason, Unload
from policy.asked import Obstacle, quicker_kind, step
from policy.books import Books
from policy.knobs import Knobs
from policy.view import Spot
from services.scheduler.act import Commands
from services.scheduler.guests import Guest
from services.scheduler.relocating import Relocating, request_ended
from services.scheduler.waiting import WaitingRoom

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Asked:
    """One, that has not begun. Whoever has asked waits for `ended`, and cancels it by leaving."""

    guest: Guest
    to_worker_id: str  # empty: any
    kind: MoveKind | None
    ended: asyncio.Future[Relocated]
    loads: list[Spot] = field(default_factory=list)  # that were commanded for it


@dataclass(frozen=True, slots=True)
class AskedMoves:
    """Of one leadership."""

    room: WaitingRoom
    books: Books
    mirror: Mirror
    commands: Commands
    relocating: Relocating
    clock: Clock
    knobs: Knobs
    asked: list[Asked] = field(default_factory=list)

    def ask(self, request_id: str, to_worker_id: str, kind: MoveKind | None) -> asyncio.Future[Relocated]:
        """Of the oldest running request that has a client's id; done when the request has moved. Raises NotFound,
        Unsuitable."""
        guest = self._find(request_id)
        self._check(guest, to_worker_id)
        one = Asked(guest, to_worker_id, kind, asyncio.get_running_loop().create_future())
        self.asked.append(one)
        return one.ended

    def look(self) -> None:
        """Takes the next step of each."""
        for one in list(self.asked):
            try:
                left = not one.ended.done() and self._step(one)
            except MeshError as error:
                one.ended.set_exception(error)
                left = False
            if not left:
                self.asked.remove(one)

    def close(self, why: MeshError) -> None:
        """Somebody else leads."""
        for one in self.asked:
            if not one.ended.done():
                one.ended.set_exception(why)
        self.asked.clear()

    def _find(self, request_id: str) -> Guest:
        named = [guest for guest in self.room.guests.values() if guest.request_id == request_id]
        running = [guest for guest in named if self.books.spot_of(guest.number)]
        if running:
            return min(running, key=lambda guest: guest.since_s)
        if named:
            raise Unsuitable(f"request {request_id!r} waits and runs nowhere yet; try when it does", reason="WAITS")
        raise NotFound(
            f"no request {request_id!r} runs; ClusterService.ListRequests shows those that do", reason="UNKNOWN_REQUEST"
        )

    def _check(self, guest: Guest, to_worker_id: str) -> None:
        if guest.stays:
            raise Unsuitable("the request gives no tokens, and ends where it is", reason="NOT_MOVABLE")
        if self.relocating.of_request(guest.number) or any(one.guest is guest for one in self.asked):
            raise Unsuitable("the request moves already; try again when it has", reason="ALREADY_MOVES")
        self._check_worker(to_worker_id, self.books.spot_of(guest.number))

    def _check_worker(self, to_worker_id: str, source: Spot | None) -> None:
        """Whether a request that runs at the source can go there at all, if any worker is named."""
        if not to_worker_id:
            return
        facts = self.mirror.facts
        worker = facts.members.get(f"{Kind.WORKER}/{to_worker_id}")
        if worker is None:
            raise NotFound(
                f"no worker {to_worker_id} is there; ClusterService.Get shows those that are", reason="UNKNOWN_WORKER"
            )
        if source and source.worker_id == to_worker_id:
            raise Unsuitable(f"the request runs on worker {to_worker_id} already", reason="ALREADY_THERE")
        if facts.is_draining(worker):
            raise Unsuitable(
                f"worker {to_worker_id} is to become empty; name another, or undrain it", reason="WORKER_DRAINS"
            )

    def _step(self, one: Asked) -> bool:
        """Whether there is more to do, or to wait for. Raises the MeshError that ends it."""
        source = self.books.spot_of(one.guest.number)
        if source is None:
            raise request_ended()
        if self.relocating.of_request(one.guest.number):
            return True  # on the policy's own account
        self._check_worker(one.to_worker_id, source)
        self.books.observe(self.mirror.facts)
        view, now = self.books.glance(), self.clock.now()
        found = step(view, source, one.to_worker_id, now, self.knobs)
        if found.obstacle:
            raise _error(found.obstacle, one)
        if found.goal:
            number, goal = one.guest.number, found.goal
            kind = one.kind or quicker_kind(view, source, goal, number, now=now, knobs=self.knobs)
            self.relocating.begin(number, goal, kind, MoveReason.ASKED, one.ended)
            return False
        if not self.mirror.stale:
            self._do(one, found.actions)
            self.books.claimed(found.claims)
        return True

    def _do(self, one: Asked, actions: Iterable[Load | Unload]) -> None:
        for action in actions:
            if isinstance(action, Unload):
                self.commands.unload(action)
                continue
            if action.spot in one.loads:
                where = action.spot.worker_id
                raise Unreachable(f"the model could not be loaded on {where}; its log says why", reason="LOAD_FAILED")
            one.loads.append(action.spot)
            self.commands.load(action, self.mirror.facts.members[f"{Kind.STORE}/{action.store_id}"].address)


def _error(obstacle: Obstacle, one: Asked) -> MeshError:
    model, where = one.guest.model, f"worker {one.to_worker_id}" if one.to_worker_id else "any other worker"
    match obstacle:
        case Obstacle.FULL:
            return NoRoom(f"all slots of {model!r} on {where} are taken; try again later", reason=obstacle)
        case Obstacle.SUPERSEDED:
            text = f"{where} has not the version of {model!r} that began the answer, and it is loaded no more"
            return Unsuitable(text, reason=obstacle)
        case Obstacle.NO_ROOM:
            text = f"{where} has no room for {model!r}, though all that idles there left, or no store has it"
            return NoRoom(text, reason=obstacle)
