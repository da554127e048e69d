"""The worker's replicas: each is one task, from the first byte of its load to the last step of its unload."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType

import structlog

from mesh.checkpoint.layout import DTYPES, Manifest, total_bytes
from mesh.clients.worker import Loaded
from mesh.errors import Broken, MeshError, NoRoom, Unreachable, Unsuitable
from mesh.facts import NEARNESS, NumericsLevel, ReplicaFacts, ReplicaState, RunnerKind, Tier
from mesh.requests import LoadProgress
from services.worker.engine.engine import Engine
from services.worker.engine.errors import EngineError, NumericsNotHeld, UnknownReplica
from services.worker.engine.replica import Proving, Replica
from services.worker.loading.adapting import AdapterLoader
from services.worker.loading.loader import Loader, Order
from services.worker.loading.threads import ended
from services.worker.resident import Resident, base_module

log = structlog.get_logger()


class Replicas:
    """By the engine's names: a model has one for each version of it. A second load of the same one joins the first."""

    def __init__(
        self,
        engine: Engine,
        loader: Loader,
        adapters: AdapterLoader,
        *,
        memory_bytes: int,
        kv_bytes: int,
        weights: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._engine, self._loader, self._adapters, self._weights = engine, loader, adapters, weights
        self._memory_bytes, self._kv_bytes = memory_bytes, kv_bytes
        self._residents: dict[str, Resident] = {}
        self.on_life: Callable[[], None] = lambda: None
        self.draining = False

    def facts(self) -> tuple[ReplicaFacts, ...]:
        """What is here, with what the engine says of its load."""
        stats = self._engine.stats().replicas
        return tuple(
            ReplicaFacts(
                model=resident.order.model,
                digest=resident.order.digest,
                state=ReplicaState.DRAINING if self.draining else resident.state,
                bytes=resident.bytes,
                running=stats[name].running if name in stats else 0,
                waiting=stats[name].waiting if name in stats else 0,
                base=resident.order.base,
                beside=resident.beside.model if resident.beside else "",
                numerics=stats[name].numerics if name in stats else resident.order.numerics or NumericsLevel.FAST,
                fingerprint=stats[name].fingerprint if name in stats else "",
                runner=stats[name].runner if name in stats else None,
                prefill_token_s=roughly(stats[name].prefill_token_s) if name in stats else 0.0,
            )
            for name, resident in self._residents.items()
        )

    def drain(self) -> None:
        """Takes no more loads, ends those under way, and says that no request should come; what runs goes on."""
        self.draining = True
        for resident in self._residents.values():
            if resident.state is ReplicaState.LOADING and resident.task:
                resident.failure = _stopping()
                resident.task.cancel()
        self.on_life()

    async def load(self, order: Order) -> AsyncGenerator[LoadProgress | Loaded, None]:
        """Progress, then Loaded. When the last listener leaves before the end, the load is cancelled."""
        if self.draining:
            raise _stopping()
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
            yield Loaded(resident.tier, resident.bytes - resident.pool_bytes)
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
        """Ends a replica and waits until its memory is back; what still runs on it fails as unloaded. A base goes when
        the last adapter on it has gone."""
        resident = self._residents.get(name)
        if resident and resident.task:
            resident.ending.set()
            await asyncio.wait([resident.task])

    async def close(self) -> None:
        """Unloads everything."""
        await asyncio.gather(*(self.unload(name) for name in list(self._residents)))

    def _begin(self, order: Order) -> Resident:
        resident = self._residents[order.replica] = Resident(order, self._beside(order))
        resident.task = asyncio.create_task(self._life(resident), name=f"replica {order.replica}")
        resident.task.add_done_callback(_log_fault)
        return resident

    async def _life(self, resident: Resident) -> None:
        name = resident.order.replica
        try:
            await (self._as_adapter(resident) if resident.beside else self._as_base(resident))
        except MeshError as error:
            log.warning("load failed", replica=name, error=error.message)
            resident.failure = error
        except asyncio.CancelledError:
            resident.failure = resident.failure or Unreachable("the load was cancelled", reason="LOAD_CANCELLED")
        finally:
            resident.failure = resident.failure or Broken("the replica has ended; the worker's log says why")
            del self._residents[name]
            self._changed(resident)

    async def _as_base(self, resident: Resident) -> None:
        async with self._loader.load(resident.order, Observer(self, resident)) as loaded:
            resident.runs = loaded.replica
            self._engine.add_replica(loaded.replica, self._weights.get(resident.order.model, 1.0))
            await self._prove(resident.order, loaded.replica)
            await self._stay(resident, loaded.tier)
            while resident.adapters:
                await resident.changed.wait()
            await asyncio.wrap_future(self._engine.remove_replica(resident.order.replica))

    async def _as_adapter(self, resident: Resident) -> None:
        name, base = resident.order.replica, await self._base(resident)
        try:
            module = base_module(base, resident.order)
            loaded = await self._adapters.load(resident.order, module, Observer(self, resident))
            adding = asyncio.wrap_future(self._engine.add_adapter(base.order.replica, loaded.adapter))
            try:
                await asyncio.shield(adding)
                await self._stay(resident, min(base.tier, loaded.tier, key=NEARNESS.__getitem__))
            finally:
                await ended([adding])
                if not adding.exception():
                    await asyncio.wrap_future(self._engine.remove_adapter(name))
        except EngineError as error:
            raise Unsuitable(f"{name} cannot run here: {error}", reason="UNSUPPORTED_ADAPTER") from error
        finally:
            base.adapters.discard(name)
            base.tell()

    async def _stay(self, resident: Resident, tier: Tier) -> None:
        """Ready, until it is to end."""
        resident.state, resident.tier = ReplicaState.READY, tier
        self._changed(resident)
        await resident.ending.wait()
        resident.state = ReplicaState.DRAINING
        self._changed(resident)

    async def _base(self, resident: Resident) -> Resident:
        """The replica that an adapter goes on, ready, and held until the adapter has gone. It is loaded if need be."""
        while resident.beside:
            async with aclosing(self.load(resident.beside)) as events:
                async for event in events:
                    if isinstance(event, LoadProgress):
                        Observer(self, resident).progress(event)
            base = self._residents.get(resident.beside.replica)
            if base and not base.leaving:
                base.adapters.add(resident.order.replica)
                return base
            resident.beside = self._beside(resident.order)  # it has just been told to go
        raise AssertionError(f"{resident.order.replica} is no adapter")

    def _beside(self, order: Order) -> Order | None:
        """The replica for an adapter to be on: one that is here, best that of its `base_model`, else one to load."""
        if not order.base:
            return None
        new = Order(order.base_model, order.base, order.store_address, numerics=order.numerics)
        here = [r.order for r in self._residents.values() if r.order.digest == order.base and not r.leaving]
        return next((one for one in here if one.model == new.model), here[0] if here else new)

    def _weights_bytes(self, resident: Resident, manifest: Manifest) -> int:
        """An adapter is kept in its base's dtype, where that is the wider one."""
        base = self._residents.get(resident.beside.replica) if resident.beside else None
        wide = base.runs.module.dtype.itemsize // DTYPES[manifest.dtype] if base and base.runs else 1
        return total_bytes(manifest) * max(1, wide)

    def _pool_bytes(self, resident: Resident, manifest: Manifest) -> int:
        return 0 if resident.order.base or manifest.runner is RunnerKind.ENCODER else self._kv_bytes

    async def _prove(self, order: Order, replica: Replica) -> None:
        """Lets a replica of an invariant level show that it holds, before anyone relies on it; Unsuitable if not."""
        if order.numerics in (None, NumericsLevel.FAST) and replica.stats().numerics is NumericsLevel.FAST:
            return
        try:
            await asyncio.wrap_future(self._engine.ask_replica(order.replica, _prove))
        except BaseException as error:
            await ended([asyncio.wrap_future(self._engine.remove_replica(order.replica))])
            if isinstance(error, EngineError):
                raise Unsuitable(f"{order.model!r} cannot run here: {error}", reason="NUMERICS_NOT_HELD") from error
            raise

    def _changed(self, resident: Resident) -> None:
        resident.tell()
        self.on_life()

    def admit(self, resident: Resident, manifest: Manifest) -> None:
        """Books the replica's memory, or raises NoRoom."""
        resident.pool_bytes = self._pool_bytes(resident, manifest)
        need = self._weights_bytes(resident, manifest) + resident.pool_bytes
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


def _prove(replica: Replica) -> None:
    if not isinstance(replica, Proving):
        raise NumericsNotHeld("its runner keeps no numerics level but fast; deploy it with numerics fast")
    replica.prove()


def _stopping() -> Unreachable:
    return Unreachable("this worker is stopping", reason="DRAINING", retry_after_s=1.0)


def _log_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (fault := task.exception()):
        log.error("a replica ended by a fault", task=task.get_name(), exc_info=fault)


def roughly(seconds: float) -> float:
    """Within a tenth, so that facts do not change with every step; 0 stays."""
    return 2.0 ** (round(4 * math.log2(seconds)) / 4) if seconds else 0.0
