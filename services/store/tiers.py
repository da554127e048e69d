"""The DRAM tier: which checkpoints lie in shared memory, how much it is, and who must leave for a newcomer."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import structlog

from mesh.clock import Clock
from mesh.errors import NoRoom
from policy.eviction import Held, make_room
from services.store.pins import Pins
from services.store.segments import Segment

log = structlog.get_logger()
RETRY_S = 1.0  # a hint: pins end when replicas do, which nobody can foretell here


@dataclass(slots=True, eq=False)
class Resident:
    """A checkpoint's memory, one segment a part."""

    digest: str
    bytes: int
    segments: tuple[Segment, ...]
    used_s: float


class DramPool:
    """At most `capacity_bytes` of segments. Those of evicted checkpoints are kept and filled again: see Segment."""

    def __init__(self, capacity_bytes: int, pins: Pins, clock: Clock, on_change: Callable[[], None]) -> None:
        self.capacity_bytes = capacity_bytes
        self._pins, self._clock, self._on_change = pins, clock, on_change
        self._residents: dict[str, Resident] = {}
        self._filling_bytes = 0
        self._spares: list[Segment] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Gives all memory back; what workers have mapped stays theirs until they unmap it."""
        for resident in self._residents.values():
            self._spares.extend(resident.segments)
        self._residents.clear()
        await _close(self._spares)
        self._spares.clear()

    @property
    def used_bytes(self) -> int:
        """Bytes that hold a checkpoint, or are being filled with one."""
        return self._filling_bytes + sum(resident.bytes for resident in self._residents.values())

    def get(self, digest: str) -> Resident | None:
        """The checkpoint, if all of it is here; counts as a use of it."""
        resident = self._residents.get(digest)
        if resident:
            resident.used_s = self._clock.now()
        return resident

    def holds(self, digest: str) -> bool:
        """Whether all of it is here."""
        return digest in self._residents

    async def reserve(self, digest: str, sizes: Sequence[int]) -> Resident:
        """Memory for the parts of a checkpoint, evicting what must leave. Raises NoRoom; then nothing has changed.

        The caller fills it, then calls `admit`, or `abandon` when that failed.
        """
        sizes = [max(size, Segment.LEAST_BYTES) for size in sizes]
        wanted_bytes = sum(sizes)
        self._make_room(digest, wanted_bytes)
        self._filling(wanted_bytes)
        taken = [self._take_spare(size) for size in sizes]
        segments: list[Segment] = []
        try:
            await _close(self._surplus())
            for spare, size in zip(taken, sizes, strict=True):
                segments.append(_sized(spare, size))
        except BaseException as error:
            self._filling(-wanted_bytes)
            self._spares.extend({*filter(None, taken), *segments})
            if isinstance(error, OSError):
                raise NoRoom(f"the machine gave no shared memory: {error}", retry_after_s=RETRY_S) from error
            raise
        return Resident(digest, wanted_bytes, tuple(segments), self._clock.now())

    def admit(self, resident: Resident) -> None:
        """The memory now holds the checkpoint."""
        self._residents[resident.digest] = resident
        self._filling(-resident.bytes)

    def abandon(self, resident: Resident) -> None:
        """The memory was not filled; it is free again."""
        self._spares.extend(resident.segments)
        self._filling(-resident.bytes)

    def evict(self, digest: str) -> None:
        """Forgets a checkpoint that nobody uses."""
        resident = self._residents.pop(digest, None)
        if resident:
            self._spares.extend(resident.segments)
            self._on_change()

    def in_use(self, digest: str) -> bool:
        """Whether somebody has it pinned, or mapped: a worker whose stream broke may still be computing with it."""
        resident = self._residents.get(digest)
        mapped = resident is not None and any(segment.shared() for segment in resident.segments)
        return mapped or self._pins.held(digest)

    def _filling(self, more_bytes: int) -> None:
        self._filling_bytes += more_bytes
        self._on_change()

    def _make_room(self, digest: str, wanted_bytes: int) -> None:
        if wanted_bytes > self.capacity_bytes:
            raise NoRoom(
                f"checkpoint {digest} needs {wanted_bytes} bytes of memory and the store has {self.capacity_bytes}; "
                "raise WHIMBREL_DRAM_BYTES, or read it by ReadUnits",
                reason="LARGER_THAN_DRAM",
            )
        held = [Held(r.digest, r.bytes, r.used_s, self.in_use(r.digest)) for r in self._residents.values()]
        eviction = make_room(held, self.capacity_bytes - self.used_bytes, wanted_bytes)
        if eviction.missing_bytes:
            raise NoRoom(
                f"checkpoint {digest} needs {wanted_bytes} bytes of memory; {eviction.missing_bytes} of them are held "
                "by checkpoints in use",
                reason="DRAM_IN_USE",
                retry_after_s=RETRY_S,
            )
        for leaving in eviction.digests:
            log.info("checkpoint evicted from memory", digest=leaving, for_digest=digest)
            self.evict(leaving)

    def _take_spare(self, size_bytes: int) -> Segment | None:
        """The largest spare segment that is not too large: it can grow, not shrink."""
        fitting = [segment for segment in self._spares if segment.bytes <= size_bytes and not segment.shared()]
        if not fitting:
            return None
        best = max(fitting, key=lambda segment: segment.bytes)
        self._spares.remove(best)
        return best

    def _surplus(self) -> list[Segment]:
        """Spares that must go so that all segments together stay within the capacity."""
        surplus: list[Segment] = []
        while self._spares and self.used_bytes + sum(s.bytes for s in self._spares) > self.capacity_bytes:
            surplus.append(self._spares.pop(0))
        return surplus


def _sized(segment: Segment | None, size_bytes: int) -> Segment:
    if segment is None:
        return Segment(size_bytes)
    segment.grow(size_bytes)
    return segment


async def _close(segments: Sequence[Segment]) -> None:
    """Off the loop: the kernel takes about a quarter of a second for a GB."""

    def close_all() -> None:
        for segment in segments:
            segment.close()

    if segments:
        await asyncio.shield(asyncio.to_thread(close_all))
