"""The DRAM tier: which checkpoints lie in shared memory, how much it is, and what must leave for a newcomer."""

import asyncio
import errno
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import structlog

from mesh.checkpoint.layout import Manifest, Unit
from mesh.clock import Clock
from mesh.errors import NoRoom, Unsuitable
from policy.eviction import Held, make_room
from services.store.activity import Activity
from services.store.memory import PartMemory
from services.store.pins import Pins
from services.store.resident import Resident
from services.store.segments import Segment
from services.store.spares import Spares, close_all

log = structlog.get_logger()
RETRY_S = 1.0  # a hint: pins end when replicas do, which nobody can foretell here
AT_ONCE = 256  # segments made before others get the loop


class DramPool:
    """At most `capacity_bytes` of segments, `segment_bytes` each but for the last of a part."""

    def __init__(
        self, capacity_bytes: int, segment_bytes: int, pins: Pins, clock: Clock, on_change: Callable[[], None]
    ) -> None:
        self.capacity_bytes, self.segment_bytes = capacity_bytes, segment_bytes
        self._pins, self._clock, self._on_change = pins, clock, on_change
        self._residents: dict[str, Resident] = {}
        self._spares = Spares()
        self._making = asyncio.Lock()  # memory is asked of the kernel for one at a time
        self._promised_bytes = 0  # for a resident that is being made
        self._settled = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Gives all memory back; what workers have mapped stays theirs until they unmap it."""
        for resident in self._residents.values():
            self._spares.put(resident.segments)
        self._residents.clear()
        await close_all(self._spares.surplus(0))

    @property
    def used_bytes(self) -> int:
        """Bytes that hold units, or are being filled with them."""
        return self._promised_bytes + sum(resident.held_bytes for resident in self._residents.values())

    def get(self, digest: str) -> Resident | None:
        """What is here of the checkpoint; counts as a use of it."""
        resident = self._residents.get(digest)
        if resident:
            resident.used_s = self._clock.now()
        return resident

    def bytes_of(self, digest: str) -> int:
        """Bytes of its units that are here."""
        resident = self._residents.get(digest)
        return resident.unit_bytes if resident else 0

    def holds(self, digest: str) -> bool:
        """Whether all of it is here."""
        resident = self._residents.get(digest)
        return resident is not None and resident.whole

    def find(self, unit: Unit) -> tuple[Resident, int] | None:
        """A unit that is here and has the same bytes, whichever checkpoint it belongs to, and its index there."""
        for resident in self._residents.values():
            if (index := resident.find(unit)) is not None:
                return resident, index
        return None

    async def reserve(self, manifest: Manifest) -> Resident:
        """All of the checkpoint's segments; its units stay as they were. Raises NoRoom; then nothing has changed.

        Pin it first. The caller fills it, tells it which units have `arrived`, and at the end, however it went, calls
        `settle`.
        """
        async with self._making:
            resident = self._residents.get(manifest.digest) or Resident(manifest, self.segment_bytes)
            gaps = list(resident.gaps())
            self._make_room(resident, sum(part.size(index) for part, index in gaps))
            self._residents[manifest.digest] = resident
            try:
                await self._close_gaps(gaps)
            except BaseException as error:
                self.settle(resident)
                if isinstance(error, OSError):
                    raise _refused(error) from error
                raise
        resident.used_s = self._clock.now()
        self._on_change()
        return resident

    def settle(self, resident: Resident) -> None:
        """Nothing is being filled any more: what holds no whole unit is free again."""
        if resident.missing():
            self._spares.put(resident.take_useless())
        self._forget_if_empty(resident)
        self._settled.set()
        self._on_change()

    def evict(self, digest: str) -> int:
        """Forgets a checkpoint; the bytes that came free. Raises Unsuitable while somebody uses it."""
        if self.in_use(digest):
            raise Unsuitable(f"checkpoint {digest} is in use; unload its replicas first", reason="CHECKPOINT_IN_USE")
        resident = self._residents.get(digest)
        freed_bytes = self._shed(resident, resident.held_bytes) if resident else 0
        if freed_bytes:
            self._on_change()
        return freed_bytes

    def in_use(self, digest: str) -> bool:
        """Whether somebody has it pinned, or mapped: a worker whose stream broke may still be computing with it."""
        return self._pins.held(digest) or self._mapped(digest)

    async def prefault(self) -> None:
        """Fills what is free of the pool with segments whose pages are there already, one after the other."""
        while True:
            async with self._making:
                if self.used_bytes + self._spares.bytes + self.segment_bytes > self.capacity_bytes:
                    return
                try:
                    await self._touch_another()
                except OSError as error:
                    log.warning("the pool is not touched any further", error=_refused(error).message)
                    return

    async def enlarge(self, activity: Activity) -> None:
        """After loads, gives what they filled pages of 2 MiB, while nobody waits for bytes. Goes on until cancelled."""
        while True:
            await self._settled.wait()
            self._settled.clear()
            while small := next((one for one in self._resident_segments() if not one.ready), None):
                await activity.quiet()
                await asyncio.to_thread(small.enlarge)

    def _resident_segments(self) -> Iterator[Segment]:
        for resident in self._residents.values():
            yield from resident.segments

    async def _touch_another(self) -> None:
        """A spare more. Cancelled, it returns when the thread has ended, for until then the segment is in its hands."""
        segment = Segment(self.segment_bytes)
        touching = asyncio.ensure_future(asyncio.to_thread(segment.touch))
        try:
            await asyncio.wait([touching])
            touching.result()
        finally:
            await asyncio.wait([touching])
            self._spares.put([segment])

    def _make_room(self, resident: Resident, wanted_bytes: int) -> None:
        """Sheds what must leave; asks the kernel who is mapped only of those that would."""
        digest, total_bytes = resident.digest, sum(part.bytes for part in resident.parts)
        if total_bytes > self.capacity_bytes:
            raise NoRoom(
                f"checkpoint {digest} needs {total_bytes} bytes of memory and the store has {self.capacity_bytes}; "
                "raise WHIMBREL_DRAM_BYTES, or read it through a ring",
                reason="LARGER_THAN_DRAM",
            )
        staying = {digest}
        while True:
            held = [
                Held(r.digest, r.held_bytes, r.used_s, r.digest in staying or self._pins.held(r.digest))
                for r in self._residents.values()
            ]
            eviction = make_room(held, self.capacity_bytes - self.used_bytes, wanted_bytes)
            if eviction.missing_bytes:
                raise NoRoom(
                    f"checkpoint {digest} needs {wanted_bytes} bytes of memory; {eviction.missing_bytes} of them are "
                    "held by checkpoints in use",
                    reason="DRAM_IN_USE",
                    retry_after_s=RETRY_S,
                )
            mapped = {shed.digest for shed in eviction.shed if self._mapped(shed.digest)}
            if not mapped:
                break
            staying |= mapped
        for shed in eviction.shed:
            freed_bytes = self._shed(self._residents[shed.digest], shed.bytes)
            log.info("checkpoint evicted from memory", digest=shed.digest, for_digest=digest, freed_bytes=freed_bytes)

    def _shed(self, resident: Resident, least_bytes: int) -> int:
        before_bytes = resident.held_bytes
        self._spares.put(resident.take_tail(least_bytes))
        self._spares.put(resident.take_useless())
        self._forget_if_empty(resident)
        return before_bytes - resident.held_bytes

    def _forget_if_empty(self, resident: Resident) -> None:
        if not resident.held_bytes and self._residents.get(resident.digest) is resident:
            del self._residents[resident.digest]

    def _mapped(self, digest: str) -> bool:
        resident = self._residents.get(digest)
        return resident is not None and any(segment.shared() for segment in resident.segments)

    async def _close_gaps(self, gaps: Sequence[tuple[PartMemory, int]]) -> None:
        """Spares where there are any, fresh memory where not; together never above the capacity."""
        self._promised_bytes = sum(part.size(index) for part, index in gaps)
        spares = [self._spares.take(part.size(index)) for part, index in gaps]
        try:
            await close_all(self._spares.surplus(self.capacity_bytes - self.used_bytes))
            for number, (part, index) in enumerate(gaps):
                part.segments[index] = self._sized(spares[number], part.size(index))
                spares[number] = None
                self._promised_bytes -= part.size(index)
                if number % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(0)  # a turn for the others
        finally:
            self._promised_bytes = 0
            self._spares.put(filter(None, spares))

    def _sized(self, segment: Segment | None, size_bytes: int) -> Segment:
        if segment is None:
            return Segment(size_bytes, self.segment_bytes)
        segment.grow(size_bytes)
        return segment


def _refused(error: OSError) -> NoRoom:
    if error.errno == errno.EMFILE:
        return NoRoom(
            "the store is out of file descriptors, of which each segment takes one; raise its limit (ulimit -n) or "
            "WHIMBREL_SEGMENT_BYTES",
            reason="DESCRIPTORS",
        )
    return NoRoom(f"the machine gave no shared memory: {error}", retry_after_s=RETRY_S)
