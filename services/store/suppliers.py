"""Where missing units come from. A source reads whole units into landings; what goes wrong, it raises."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Protocol

from mesh.checkpoint.errors import CorruptUnit
from mesh.checkpoint.layout import Manifest
from mesh.checkpoint.origin import Origin
from mesh.clients.store import StoreClient, UnitChunk
from mesh.errors import NotFound, Unreachable, Unsuitable
from mesh.facts import Member
from services.store.catalog import Stored
from services.store.landing import Landing
from services.store.memory import Place, release
from services.store.pins import Pins
from services.store.rates import LOCAL_BYTES_PER_S, MEMORY_BYTES_PER_S, ORIGIN_BYTES_PER_S, PEER_BYTES_PER_S
from services.store.tiers import DramPool

UNIT_NOT_HERE = "UNIT_NOT_HERE"
STALL_S = 10.0  # a source that has sent nothing for so long is taken for dead
ORIGIN_CHUNK_BYTES = 4 << 20  # one request to a server
Landed = Callable[[Landing], None]


class Source(Protocol):
    """One source, for the length of one fetch."""

    name: str
    """The same over fetches: what is learnt of it is kept under it."""
    local: bool
    """Whether nothing crosses a network: what it offers is asked of nobody else."""
    lanes: int
    """Reads at once."""
    batch_bytes: int
    """Of the units of one read, unless one alone is larger."""
    prior_bytes_per_s: float

    def offers(self, unit: int) -> bool:
        """Whether it may have the unit."""

    async def read(self, landings: Sequence[Landing], landed: Landed) -> None:
        """Lands the units in this order, but those that it has no more; says so of each.

        Raises MeshError, CheckpointError.
        """

    async def wrong(self, unit: int) -> None:
        """The unit had wrong bytes, and was not landed."""


class Threads:
    """The threads that hash and write what arrives, and wait for origins: for none longer than `stall_s` in silence."""

    def __init__(self, count: int, stall_s: float = STALL_S) -> None:
        self.stall_s = stall_s
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="fetch")

    def begin(self, work: Callable[[], None]) -> "asyncio.Future[None]":
        """Runs it. Whoever stops waiting stops its landing first, so that nothing is written behind their back."""
        running = asyncio.get_running_loop().run_in_executor(self._pool, work)
        running.add_done_callback(lambda done: done.cancelled() or done.exception())
        return running

    def close(self) -> None:
        """Starts nothing any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class PeerSource:
    """Another node's store, over ReadUnits."""

    local, lanes, batch_bytes, prior_bytes_per_s = False, 2, 16 << 20, PEER_BYTES_PER_S

    def __init__(self, peer: Member, digest: str, client: StoreClient, threads: Threads) -> None:
        self.name = f"store {peer.id}"
        self._address, self._digest = peer.address, digest
        self._client, self._threads = client, threads
        self._lacks: set[int] = set()

    def offers(self, unit: int) -> bool:
        """Until it has said that it lacks it: facts tell how much a store has, not what."""
        return unit not in self._lacks

    async def read(self, landings: Sequence[Landing], landed: Landed) -> None:
        """One call for all of them."""
        indexes = [landing.index for landing in landings]
        try:
            async with aclosing(
                self._client.read_units(self._address, self._digest, indexes, here_only=True)
            ) as chunks:
                for landing in landings:
                    while landing.bytes_done < landing.unit.bytes:
                        chunk = await self._next(chunks.__anext__(), landing)
                        _check(chunk, landing, self._digest)
                        await self._threads.begin(lambda data=chunk.data, to=landing: to.put(data))  # type: ignore[misc]
                    await self._threads.begin(landing.finish)
                    landed(landing)
        except NotFound as error:
            if error.reason != UNIT_NOT_HERE:
                raise
            self._lacks.update(missing_units(error) & set(indexes) or indexes)

    async def wrong(self, unit: int) -> None:
        """Not asked for this one again."""
        self._lacks.add(unit)

    async def _next(self, chunk: Awaitable[UnitChunk], landing: Landing) -> UnitChunk:
        try:
            async with asyncio.timeout(self._threads.stall_s):
                return await chunk
        except TimeoutError:
            raise Unreachable(
                f"{self.name} has sent nothing for {self._threads.stall_s} s", retry_after_s=1.0
            ) from None
        except StopAsyncIteration:
            raise CorruptUnit(self._digest, landing.unit.name, "its stream ended early, and in order") from None


def _check(chunk: UnitChunk, landing: Landing, digest: str) -> None:
    if not chunk.data or chunk.unit != landing.index or chunk.offset != landing.bytes_done:
        raise CorruptUnit(digest, landing.unit.name, "its stream has other bytes than were asked for")


def not_here(digest: str, units: Sequence[int]) -> NotFound:
    """What a store says of units that it would have to fetch itself; as many as fit are named."""
    return NotFound(
        f"{len(units)} of the units of checkpoint {digest} are not in this store now",
        reason=UNIT_NOT_HERE,
        metadata={"units": " ".join(map(str, units[:16]))},
    )


def missing_units(error: NotFound) -> set[int]:
    """The units that `not_here` named."""
    return {int(word) for word in error.metadata.get("units", "").split() if word.isdigit()}


class OriginSource:
    """A directory of parts as this store writes them, wherever it lies."""

    local, lanes, batch_bytes, prior_bytes_per_s = False, 4, 16 << 20, ORIGIN_BYTES_PER_S

    def __init__(self, origin: Origin, manifest: Manifest, threads: Threads) -> None:
        self.name = f"origin {origin.url.removesuffix(manifest.digest)}"
        self._origin, self._manifest, self._threads = origin, manifest, threads
        self._lacks: set[int] = set()

    def offers(self, unit: int) -> bool:
        """All of them, but for those that came wrong."""
        return unit not in self._lacks

    async def read(self, landings: Sequence[Landing], landed: Landed) -> None:
        """A thread reads them, range after range."""
        for landing in landings:
            await self._watched(landing, self._threads.begin(lambda to=landing: self._copy(to)))  # type: ignore[misc]
            landed(landing)

    async def wrong(self, unit: int) -> None:
        """Not asked for this one again."""
        self._lacks.add(unit)

    async def _watched(self, landing: Landing, reading: "asyncio.Future[None]") -> None:
        """A call that hangs cannot be interrupted, but left: its landing takes nothing any more."""
        while not reading.done():
            before = landing.bytes_done
            await asyncio.wait([reading], timeout=self._threads.stall_s)
            if not reading.done() and landing.bytes_done == before:
                raise Unreachable(f"{self.name} has sent nothing for {self._threads.stall_s} s", retry_after_s=1.0)
        reading.result()

    def _copy(self, landing: Landing) -> None:
        unit = landing.unit
        buffer = memoryview(bytearray(min(unit.bytes, ORIGIN_CHUNK_BYTES)))
        while landing.bytes_done < unit.bytes:
            piece = buffer[: unit.bytes - landing.bytes_done]
            self._origin.read_into(self._manifest.parts[unit.part].file, unit.offset + landing.bytes_done, piece)
            landing.put(piece)
        landing.finish()


class MemorySource:
    """Units with the same hash that are in this store's shared memory, whichever checkpoint they are of."""

    name, local, lanes, batch_bytes, prior_bytes_per_s = "memory", True, 1, 16 << 20, MEMORY_BYTES_PER_S

    def __init__(self, stored: Stored, dram: DramPool, pins: Pins, threads: Threads) -> None:
        self._units, self._dram, self._pins, self._threads = stored.manifest.units, dram, pins, threads
        self._lacks: set[int] = set()

    def offers(self, unit: int) -> bool:
        """Whether it is there now."""
        return unit not in self._lacks and self._dram.find(self._units[unit]) is not None

    async def read(self, landings: Sequence[Landing], landed: Landed) -> None:
        """A thread copies them, the lender pinned meanwhile."""
        for landing in landings:
            if found := self._dram.find(landing.unit):
                resident, index = found
                with self._pins.hold(resident.digest):
                    place = resident.place(index)
                    await self._threads.begin(lambda to=landing, at=place: _lend(at, to))  # type: ignore[misc]
                landed(landing)

    async def wrong(self, unit: int) -> None:
        """It came into memory damaged, from a disk that was trusted: out with it, unless somebody uses it."""
        self._lacks.add(unit)
        if found := self._dram.find(self._units[unit]):
            with contextlib.suppress(Unsuitable):
                self._dram.evict(found[0].digest)


class DiskSource:
    """Units with the same hash that lie on this disk already, as another checkpoint's or as this one's own."""

    name, local, lanes, batch_bytes, prior_bytes_per_s = "this disk", True, 2, 16 << 20, LOCAL_BYTES_PER_S

    def __init__(
        self, twins: dict[int, tuple[Stored, int]], stored: Stored, pins: Pins, threads: Threads, blame: "Blame"
    ) -> None:
        self._twins, self._stored, self._pins, self._threads, self._blame = twins, stored, pins, threads, blame

    def offers(self, unit: int) -> bool:
        """Whether it is still there."""
        return self._where(unit) is not None

    async def read(self, landings: Sequence[Landing], landed: Landed) -> None:
        """A thread copies them, and hashes what it copied."""
        for landing in landings:
            if (where := self._where(landing.index)) is None:
                continue  # just gone, and not offered any more
            stored, index = where
            with self._pins.hold(stored.manifest.digest):
                await self._threads.begin(lambda to=landing, s=stored, i=index: _copy(s, i, to))  # type: ignore[misc]
            landed(landing)

    async def wrong(self, unit: int) -> None:
        """The copy here is damaged."""
        if where := self._where(unit):
            self._twins.pop(unit, None)
            await self._blame(*where, "its copy does not have its hash")

    def _where(self, unit: int) -> tuple[Stored, int] | None:
        if unit in self._stored.units_on_disk:
            return self._stored, unit
        twin = self._twins.get(unit)
        return twin if twin and twin[1] in twin[0].units_on_disk else None


class Blame(Protocol):
    """Who is told of damage on this disk."""

    async def __call__(self, stored: Stored, unit: int, why: str, /) -> None:
        """The unit's bytes on disk are not what its hash says."""


def _lend(place: Place, landing: Landing) -> None:
    views = place.part.views(place.offset, landing.unit.bytes)
    try:
        for view in views:
            landing.put(view)
    finally:
        release(views)
    landing.finish()


def _copy(stored: Stored, index: int, landing: Landing) -> None:
    unit = stored.manifest.units[index]
    try:
        descriptor = os.open(stored.part_paths[unit.part], os.O_RDONLY | os.O_CLOEXEC)
        try:
            landing.copy(descriptor, unit.offset)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CorruptUnit(stored.manifest.digest, unit.name, f"it cannot be read: {error}") from error
    landing.finish()
