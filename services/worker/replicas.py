"""The worker's replicas: each is one task, from the first byte of its load to the last step of its unload."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import structlog

from mesh.checkpoint.layout import Manifest, total_bytes
from mesh.clients.worker import Loaded
from mesh.errors import Broken, MeshError, NoRoom, Unreachable
from mesh.facts import ReplicaFacts, ReplicaState, Tier
from mesh.requests import LoadProgress
from services.worker.engine.engine import Engine
from services.worker.engine.errors import UnknownReplica
from services.worker.loading.loader import Loader, Order

log = structlog.get_logger()


@dataclass(slots=True)
class Resident:
    """One replica and its task."""

    order: Order
    state: ReplicaState = ReplicaState.LOADING
    bytes: int = 0
    tier: Tier = Tier.DISK
    progress: LoadProgress | None = None
    failure: MeshError | None = None
    listeners: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # replaced at each change
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def leaving(self) -> bool:
        """Whether it is on its way out: unloading, or a load that has just been cancelled."""
        cancelled = self.task is not None and self.task.cancelling() > 0
        return cancelled or self.state is ReplicaState.DRAINING

    def tell(self) -> None:
        """Wakes everyone who waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


class Replicas:
    """By the engine's names: a model has one for each version of it. A second load of the same one joins the first."""

    def __init__(self, engine: Engine, loader: Loader, memory_bytes: int, kv_bytes: int) -> None:
        self._engine, self._loader = engine, loader
        self._memory_bytes, self._kv_bytes = memory_bytes, kv_bytes
        self._residents: dict[str, Resident] = {}
        self.on_life: Callable[[], None] = lambda: None
        self._draining = False

    def facts(self) -> tuple[ReplicaFacts, ...]:
        """What is here, with what the engine says of its load."""
        stats = self._engine.stats().replicas
        return tuple(
            ReplicaFacts(
                model=resident.order.model,
                digest=resident.order.digest,
                state=ReplicaState.DRAINING if self._draining else resident.state,
                bytes=resident.bytes,
                running=stats[name].running if name in stats else 0,
                waiting=stats[name].waiting if name in stats else 0,
            )
            for name, resident in self._residents.items()
        )

    def drain(self) -> None:
        """Takes no more loads, and says that no request should come; what runs goes on."""
        self._draining = True
        self.on_life()

    async def load(self, order: Order) -> AsyncGenerator[LoadProgress | Loaded, None]:
        """Progress, then Loaded. When the last listener leaves before the end, the load is cancelled."""
        if self._draining:
            raise Unreachable("this worker is stopping", reason="DRAINING", retry_after_s=1.0)
        resident = await self._settled(order.replica) or self._begin(order)
        resident.listeners += 1
        try:
            while resident.state is ReplicaState.LOADING and not resident.failure:
                changed = resident.changed
                if resident.progress:
                    yield resident.progress
                await changed.wait()
            if resident.failure:
                raise resident.failure
            yield Loaded(resident.tier, resident.bytes - self._kv_bytes)
        finally:
            resident.listeners -= 1
            if not resident.listeners and resident.state is ReplicaState.LOADING and resident.task:
                resident.state = ReplicaState.DRAINING  # who comes now waits for its end, and loads anew
                resident.task.cancel()

    async def _settled(self, name: str) -> Resident | None:
        """The replica of a name, once none that is leaving is left."""
        while (resident := self._residents.get(name)) and resident.leaving and resident.task:
            await asyncio.wait([resident.task])
        return resident

    def order_of(self, name: str) -> Order:
        """What a replica was made of. Raises UnknownReplica."""
        if name not in self._residents:
            raise UnknownReplica(f"no replica of {name} is resident")
        return self._residents[name].order

    async def unload(self, name: str) -> None:
        """Ends a replica and waits until its memory is back; what still runs on it fails as unloaded."""
        resident = self._residents.get(name)
        if resident and resident.task:
            resident.ending.set()
            await asyncio.wait([resident.task])

    async def close(self) -> None:
        """Unloads everything."""
        await asyncio.gather(*(self.unload(name) for name in list(self._residents)))

    def _begin(self, order: Order) -> Resident:
        resident = self._residents[order.replica] = Resident(order)
        resident.task = asyncio.create_task(self._life(resident), name=f"replica {order.replica}")
        resident.task.add_done_callback(_log_fault)
        return resident

    async def _life(self, resident: Resident) -> None:
        name = resident.order.replica
        try:
            async with self._loader.load(resident.order, self._observer(resident)) as loaded:
                self._engine.add_replica(loaded.replica)
                resident.state, resident.tier = ReplicaState.READY, loaded.tier
                self._changed(resident)
                await resident.ending.wait()
                resident.state = ReplicaState.DRAINING
                self._changed(resident)
                await asyncio.wrap_future(self._engine.remove_replica(name))
        except MeshError as error:
            log.warning("load failed", replica=name, error=error.message)
            resident.failure = error
        except asyncio.CancelledError:
            resident.failure = Unreachable("the load was cancelled", reason="LOAD_CANCELLED")
        finally:
            resident.failure = resident.failure or Broken("the replica has ended; the worker's log says why")
            del self._residents[name]
            self._changed(resident)

    def _changed(self, resident: Resident) -> None:
        resident.tell()
        self.on_life()

    def _observer(self, resident: Resident) -> "Observer":
        return Observer(self, resident)

    def admit(self, resident: Resident, manifest: Manifest) -> None:
        """Books the replica's memory, or raises NoRoom."""
        need = total_bytes(manifest) + self._kv_bytes
        used = sum(other.bytes for other in self._residents.values())
        if used + need > self._memory_bytes:
            raise NoRoom(
                f"{resident.order.model!r} needs {need} bytes; {self._memory_bytes - used} are free",
                reason="NO_DEVICE_MEMORY",
            )
        resident.bytes = need
        self._changed(resident)


@dataclass(frozen=True, slots=True)
class Observer:
    """What the loader tells a replica's owner, as it goes."""

    replicas: Replicas
    resident: Resident

    def manifest(self, manifest: Manifest) -> None:
        """The size is known: book the memory, or raise NoRoom."""
        self.replicas.admit(self.resident, manifest)

    def progress(self, progress: LoadProgress) -> None:
        """Bytes have come."""
        self.resident.progress = progress
        self.resident.tell()


def _log_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (fault := task.exception()):
        log.error("a replica ended by a fault", task=task.get_name(), exc_info=fault)
