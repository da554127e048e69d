"""Commands to workers, under way: each is a task of the leader's group, and its end wakes the loop."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog

from mesh.clients.worker import LoadCommand, Loaded, WorkerClient
from mesh.clock import Clock
from mesh.errors import MeshError, NoRoom, StaleFence, Unreachable
from mesh.facts import ClusterFacts, Kind, Member, ReplicaFacts, ReplicaState
from mesh.requests import LoadProgress
from mesh.state.mirror import Mirror
from mesh.state.reservations import Reservation
from policy.actions import Load, LoadReason, Unload, UnloadReason
from policy.books import Books
from policy.knobs import Knobs
from policy.view import Spot, View
from services.scheduler.learning import Learning
from services.scheduler.reserving import Reserving
from services.scheduler.turns import Turns
from services.scheduler.waiting import Loading, WaitingRoom

log = structlog.get_logger()
SEEN_S = 10.0
SPARED_S = 2.0  # for a load that a former leader began, until those who wait for it have come to us
AHEAD = frozenset({LoadReason.MINIMUM, LoadReason.PREWARM, LoadReason.SCALE_OUT, LoadReason.MOVE})


@dataclass(frozen=True, slots=True)
class Commands:
    """Carries out Load and Unload. Books say what is under way until the facts say it is done."""

    workers: WorkerClient
    mirror: Mirror
    room: WaitingRoom
    books: Books
    group: asyncio.TaskGroup
    fence: int
    clock: Clock
    knobs: Knobs
    wake: Callable[[], None]
    learning: Learning
    reserving: Reserving
    turns: Turns
    spared_until_s: dict[Spot, float] = field(default_factory=dict)  # inherited: who waits for them is still to come
    loads: dict[Spot, asyncio.Task[None]] = field(default_factory=dict)
    ahead: set[Spot] = field(default_factory=set)  # of these, those that need nobody to wait for them

    def load(self, action: Load, store_address: str) -> None:
        """Begins a load, at once."""
        spot = action.spot
        self.books.load_began(action, self.clock.now())
        if spot not in self.spared_until_s:
            self.learning.begins(action, self.mirror.facts)
        entry = self.mirror.facts.models.get(action.base_model or spot.model)  # an adapter has its base's level
        numerics = entry.numerics if entry else None
        base = (action.base, action.base_model)
        command = LoadCommand(spot.model, spot.digest, store_address, self.fence, *base, numerics)
        if action.reason in AHEAD:
            self.ahead.add(spot)
        self.loads[spot] = self.group.create_task(self._load(action, command), name=f"load {spot}")

    def inherit(self, left: Reservation) -> None:
        """Goes on with a load that a former leader commanded: our command joins it, or makes it anew, and from then on
        the worker refuses older ones. What cannot be gone on with is ended."""
        spot, facts = Spot(left.worker_id, left.model, left.digest), self.mirror.facts
        worker = facts.members.get(f"{Kind.WORKER}/{left.worker_id}")
        if worker is None or worker.fence != left.worker_fence or self._ready(spot):
            return
        log.info("load inherited", model=spot.model, worker=spot.worker_id, checkpoint=spot.digest, former=left.fence)
        store, entry = facts.members.get(f"{Kind.STORE}/{left.store_id}"), facts.models.get(left.model)
        if store is None or entry is None or entry.checkpoint.digest != left.digest:
            self.unload(Unload(spot, UnloadReason.SUPERSEDED))
            return
        self.spared_until_s[spot] = self.clock.now() + SPARED_S  # and nothing is learnt of one that began before
        self.load(
            Load(spot, left.store_id, left.base, left.base_model, LoadReason(left.reason), left.tenant), store.address
        )

    def end_unwanted_loads(self, view: View, models: Collection[str] | None) -> None:
        """Cancels each load, of these models or of all, that nobody waits for any more: clients have left, their
        deadlines have passed, the catalogue has moved on, or the worker is to become empty. One that is to take over
        from a former version is wanted for as long as that answers."""
        of_models = (spot for model in models or () for spot in view.replicas.loads_of(model))
        for spot in list(self.loads) if models is None else {*of_models, *self.spared_until_s} & self.loads.keys():
            task = self.loads[spot]
            if not (task.cancelling() or self._ready(spot) or self._wanted(spot, view)):
                log.info("load ended: nobody waits for it", model=spot.model, worker=spot.worker_id)
                task.cancel()

    def unload(self, action: Unload) -> None:
        """Begins an unload, at once."""
        spot = action.spot
        self.books.unload_began(spot)
        log.info("unload", model=spot.model, worker=spot.worker_id, checkpoint=spot.digest, reason=action.reason)
        self.group.create_task(self._unload(spot), name=f"unload {spot}")

    async def _load(self, action: Load, command: LoadCommand) -> None:
        spot = action.spot
        try:
            worker = self._worker(spot)
            async with self.reserving.reserved(action, worker):
                await self.turns.of(spot)
                began_s = self.clock.now()
                async with aclosing(self.workers.load(worker.address, command)) as events:
                    async for event in events:
                        progress = event if isinstance(event, LoadProgress) else _complete(event)
                        self.room.loading(Loading(spot, progress, began_s))
                        self.learning.progressed(spot, progress.bytes_done)
                        self.turns.look()
                await self._seen(lambda _: self._ready(spot))
            self.learning.done(spot)
            load_s = self.clock.now() - began_s
            log.info("replica ready", model=spot.model, worker=spot.worker_id, checkpoint=spot.digest, load_s=load_s)
        except MeshError as error:
            self._load_failed(spot, error)
        finally:
            self.books.load_ended(spot, self.clock.now())
            self.learning.ended(spot)
            self.turns.look()
            del self.loads[spot]
            self.ahead.discard(spot)
            self.room.loaded(spot)
            self.wake()

    async def _unload(self, spot: Spot) -> None:
        began_s = self.clock.now()
        try:
            worker = self._worker(spot)
            await self.workers.unload(worker.address, spot.model, spot.digest, self.fence)
            await self._seen(lambda _: self._replica(spot) is None)
            self.learning.unloaded(worker.node, self.clock.now() - began_s)
        except MeshError as error:
            log.warning("unload failed", model=spot.model, worker=spot.worker_id, error=error.message)
            self._distrust(spot)
        finally:
            self.books.unload_ended(spot)
            self.wake()

    def _load_failed(self, spot: Spot, error: MeshError) -> None:
        """A worker's trouble sends the load elsewhere; the checkpoint's trouble goes to those who wait for it, but for
        those whom a former version will answer."""
        log.warning("load failed", model=spot.model, worker=spot.worker_id, error=error.message)
        if isinstance(error, Unreachable | StaleFence | NoRoom):
            self._distrust(spot)
            return
        self.books.unfit(spot.digest, self.clock.now() + self.knobs.unfit_s)
        spared = self._has_former(spot)
        for waiting in [ticket.waiting for ticket in self.room.of_model(spot.model)]:
            elsewhere = waiting.digest != spot.digest if waiting.digest else spared and not waiting.current_only
            if not elsewhere:
                self.room.refuse(waiting.request_id, error)

    def _distrust(self, spot: Spot) -> None:
        self.books.distrust(spot.worker_id, self.clock.now() + self.knobs.distrust_s)

    async def _seen(self, done: Callable[[ClusterFacts], bool]) -> None:
        """Waits until the facts show what the worker has said; they are a moment behind."""
        if not await self.mirror.until(done, SEEN_S):
            raise Unreachable("the worker's facts do not follow; is Redis there?")

    def _wanted(self, spot: Spot, view: View) -> bool:
        entry = view.cluster.models.get(spot.model)
        if entry is None or entry.checkpoint.digest != spot.digest or self._is_draining(spot):
            return False
        spared = spot in self.ahead or self.clock.now() < self.spared_until_s.get(spot, 0.0)
        return bool(spared or self.room.of_model(spot.model) or view.former(entry))

    def _is_draining(self, spot: Spot) -> bool:
        member = self.mirror.facts.members.get(f"{Kind.WORKER}/{spot.worker_id}")
        return member is not None and self.mirror.facts.is_draining(member)

    def _has_former(self, spot: Spot) -> bool:
        self.books.observe(self.mirror.facts)
        view = self.books.glance()
        entry = view.cluster.models.get(spot.model)
        return entry is not None and bool(view.former(entry))

    def _ready(self, spot: Spot) -> bool:
        replica = self._replica(spot)
        return replica is not None and replica.state is ReplicaState.READY

    def _replica(self, spot: Spot) -> ReplicaFacts | None:
        member = self.mirror.facts.members.get(f"{Kind.WORKER}/{spot.worker_id}")
        return member.worker.replica(spot.model, spot.digest) if member and member.worker else None

    def _worker(self, spot: Spot) -> Member:
        member = self.mirror.facts.members.get(f"{Kind.WORKER}/{spot.worker_id}")
        if member is None:
            raise Unreachable(f"worker {spot.worker_id} is gone")
        return member


def _complete(loaded: Loaded) -> LoadProgress:
    """A quick load tells nothing but its end."""
    return LoadProgress(loaded.tier, loaded.bytes, loaded.bytes)
