"""What a store says while a checkpoint comes into its memory, or through its ring. What it says is checked here."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

from whimbrel.store.v1 import store_pb2 as pb

from mesh.checkpoint.layout import Manifest
from mesh.clients.manifests import Manifests
from mesh.clients.wire import load_progress_from, tier_from
from mesh.errors import Broken, DataLoss
from mesh.facts import Tier
from mesh.requests import LoadProgress
from mesh.segment import SharedMemory


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint's place in the store's memory; `tier` is the farthest that any of its bytes come from."""

    manifest: Manifest
    tier: Tier
    shared_memory: SharedMemory


@dataclass(frozen=True, slots=True)
class UnitsReady:
    """Units whose bytes are in memory, by their index in the manifest."""

    units: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SlotFilled:
    """`bytes` of a unit lie at the start of a slot; `offset` is within the unit."""

    slot: int
    unit: int
    offset: int
    bytes: int


class Opening:
    """A checkpoint on its way into the store's memory. `opened` comes first, then the `arrivals` to their end."""

    def __init__(self, digest: str, responses: AsyncGenerator[pb.OpenResponse, None], manifests: Manifests) -> None:
        self._digest, self._responses, self._manifests = digest, responses, manifests
        self._opened: Opened | None = None
        self._early: LoadProgress | None = None  # what was heard last before `opened`
        self._missing: set[int] = set()

    async def opened(self) -> Opened:
        """The memory, which may still be filling. Raises NotFound, NoRoom, Unreachable; Broken, DataLoss."""
        while self._opened is None:
            event = await self._next()
            self._early = event if isinstance(event, LoadProgress) else self._early
        return self._opened

    async def arrivals(self) -> AsyncGenerator[LoadProgress | UnitsReady, None]:
        """How it goes, and each unit once, until all are in memory. Raises NoRoom, DataLoss, Unreachable, Broken."""
        if self._early:
            yield self._early
        while not isinstance(event := await self._next(), pb.Complete):
            if event is not None:
                yield event

    async def progress(self) -> AsyncGenerator[LoadProgress, None]:
        """The same without the units."""
        async for event in self.arrivals():
            if isinstance(event, LoadProgress):
                yield event

    async def complete(self) -> Opened:
        """The memory, filled; what is left of the arrivals is skipped."""
        async for _ in self.arrivals():
            pass
        return await self.opened()

    async def _next(self) -> LoadProgress | UnitsReady | pb.Complete | None:
        """One event; None for `opened`, which is kept."""
        response = await anext(self._responses, None)
        kind = response.WhichOneof("event") if response is not None else None
        if response is None or kind is None:
            raise Broken("the store ended Open before everything was in memory")
        if kind == "progress":
            return load_progress_from(response.progress)
        if (kind == "opened") != (self._opened is None):
            raise _bad_stream("Open's events came out of order")
        if kind == "opened":
            await self._take(response.opened)
            return None
        return self._ready(response.units) if kind == "units" else self._ended(response.complete)

    async def _take(self, message: pb.Opened) -> None:
        manifest = await self._manifests.of(message.manifest)
        if manifest.digest != self._digest:
            raise DataLoss(f"the store opened {manifest.digest}, not {self._digest}", reason="BAD_MANIFEST")
        self._missing = set(range(len(manifest.units)))
        self._opened = Opened(manifest, tier_from(message.tier), _shared_memory(message.shared_memory))

    def _ready(self, message: pb.UnitsReady) -> UnitsReady:
        units = tuple(message.units)
        if len(set(units) & self._missing) != len(units):
            raise _bad_stream("units came twice, or do not exist")
        self._missing.difference_update(units)
        return UnitsReady(units)

    def _ended(self, message: pb.Complete) -> pb.Complete:
        if self._missing:
            raise _bad_stream(f"Open is complete without {len(self._missing)} units")
        return message


class RingReading:
    """Units that pass through a ring of shared memory: the ring's `memory` first, then what is `filled`."""

    def __init__(
        self, responses: AsyncGenerator[pb.ReadThroughRingResponse, None], free: Callable[[int], None]
    ) -> None:
        self._responses = responses
        self.free = free
        """Gives a slot back to the store, by its index."""

    async def memory(self) -> SharedMemory:
        """One segment a slot. Raises NotFound, NoRoom, Unreachable."""
        response = await self._next()
        if response.WhichOneof("event") != "ring":
            raise _bad_stream("ReadThroughRing's events came out of order")
        return _shared_memory(response.ring)

    async def filled(self) -> AsyncGenerator[SlotFilled, None]:
        """Slots as they are filled, until every unit has been sent. Nothing of what they say has been checked."""
        while (event := (response := await self._next()).WhichOneof("event")) != "complete":
            if event != "filled":
                raise _bad_stream("ReadThroughRing's events came out of order")
            filled = response.filled
            yield SlotFilled(filled.slot, filled.unit, filled.offset, filled.bytes)

    async def _next(self) -> pb.ReadThroughRingResponse:
        response = await anext(self._responses, None)
        if response is None:
            raise Broken("the store ended ReadThroughRing before every unit had come")
        return response


def _shared_memory(message: pb.SharedMemory) -> SharedMemory:
    return SharedMemory(Path(message.socket_path), message.token, message.segment_bytes)


def _bad_stream(problem: str) -> DataLoss:
    return DataLoss(f"the store's answer cannot be used: {problem}", reason="BAD_STREAM")
