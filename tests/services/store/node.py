"""What a store fetches with, without its wire: a catalogue on a real directory, in a real cluster."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mesh.checkpoint.origin import Origin
from mesh.checkpoint.origins import open_origin
from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.clock import MonotonicClock
from mesh.facts import ClusterFacts, Kind
from mesh.state.connection import State
from mesh.state.mirror import Mirror
from services.store.activity import Activity
from services.store.catalog import Catalog, Stored
from services.store.fetch import Fetcher
from services.store.learn import Learner
from services.store.origins import Origins
from services.store.peers import Peers
from services.store.pins import Pins
from services.store.quarantine import Quarantine
from services.store.rates import Rates
from services.store.room import Room
from services.store.suppliers import Threads
from services.store.tiers import DramPool
from tests.services.store.made import MB, Made

SEEN_S = 60.0


@dataclass(frozen=True, slots=True)
class Node:
    """The parts, wired as the store's process does it."""

    catalog: Catalog
    pins: Pins
    mirror: Mirror
    quarantine: Quarantine
    room: Room
    dram: DramPool
    fetcher: Fetcher
    learner: Learner
    rates: Rates
    activity: Activity

    async def sees(self, *store_ids: str) -> None:
        """Waits until these stores are known here."""

        def seen(facts: ClusterFacts) -> bool:
            return {*store_ids} <= {member.id for member in facts.of_kind(Kind.STORE)}

        assert await self.mirror.until(seen, SEEN_S)

    async def fetch(self, stored: Stored, units: Sequence[int] | None = None, *, urgent: bool = True) -> list[int]:
        """To the disk; the units in the order in which they came. Unless told: all that are missing."""
        came: list[int] = []
        missing = sorted(set(range(len(stored.manifest.units))) - stored.units_on_disk)
        await self.fetcher.fetch(stored, missing if units is None else units, None, came.append, urgent=urgent)
        return came


@asynccontextmanager
async def node(
    state: State,
    root: Path,
    *,
    own_id: str = "s1",
    origins: Sequence[str] = (),
    opener: Callable[[str], Origin] = open_origin,
    disk_bytes: int | None = None,
    stall_s: float = 30.0,
) -> AsyncIterator[Node]:
    """On `root`; closed at the end."""
    channels, threads, pins, activity = Channels(), Threads(8, stall_s), Pins(), Activity()
    async with Mirror(state).running() as mirror, Catalog(root, lambda: None) as catalog:
        peers, beyond = Peers(mirror, own_id, StoreClient(channels)), Origins(origins, opener)
        quarantine, room = Quarantine(catalog), Room(catalog, pins, peers, beyond, disk_bytes)
        dram = DramPool(64 * MB, 2 * MB, pins, MonotonicClock(), lambda: None)
        rates = Rates(MonotonicClock())
        fetcher = Fetcher(
            catalog=catalog,
            dram=dram,
            pins=pins,
            room=room,
            peers=peers,
            origins=beyond,
            quarantine=quarantine,
            rates=rates,
            threads=threads,
            activity=activity,
            clock=MonotonicClock(),
        )
        learner = Learner(catalog, peers, beyond)
        try:
            yield Node(catalog, pins, mirror, quarantine, room, dram, fetcher, learner, rates, activity)
        finally:
            threads.close()
            await channels.close()


@dataclass(slots=True)
class Memory:
    """A part in memory, full of what was there before, in pieces of `piece_bytes`."""

    content: bytearray
    piece_bytes: int = 1 << 20

    def views(self, offset: int, length: int) -> list[memoryview]:
        """The pieces of that byte range, in order."""
        whole, end, pieces = memoryview(self.content), offset + length, []
        while offset < end:
            cut = min(end, (offset // self.piece_bytes + 1) * self.piece_bytes)
            pieces.append(whole[offset:cut])
            offset = cut
        return pieces


def memory_of(made: Made) -> list[Memory]:
    """Memory for all parts."""
    return [Memory(bytearray(b"\xff" * len(part))) for part in made.parts]
