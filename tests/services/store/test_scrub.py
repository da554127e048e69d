"""Damage: found before anybody needs the bytes, never served, fetched again where somebody has them, and counted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh.checkpoint.verify import verify_checkpoint
from mesh.clock import MonotonicClock
from mesh.errors import DataLoss
from mesh.state.connection import State
from services.store.activity import Activity
from services.store.catalog import QUARANTINE, Stored
from services.store.presence import Presence
from services.store.scrub import CURSOR, Scrub
from tests.services.store.made import MB, Made, flip, make
from tests.services.store.node import Node, node
from tests.services.store.peer import peer

PARTS = ((3 * MB + 5, 100, 2 * MB), (4096, MB))
UNITS = frozenset(range(5))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A checkpoint on this disk."""
    return make(tmp_path / "here", seed=1, part_units=PARTS)


class Mended:
    """What the scrub asked to be repaired; `tried` after each."""

    def __init__(self, here: Node) -> None:
        self._here = here
        self.units: list[int] = []
        self.tried = asyncio.Event()

    async def repair(self, stored: Stored, unit: int) -> None:
        """For real, and remembered."""
        self.units.append(unit)
        try:
            await self._here.fetcher.repair(stored, unit)
        finally:
            self.tried.set()


@asynccontextmanager
async def scrubbing(here: Node) -> AsyncIterator[Mended]:
    """A scrub at full speed, until the context is closed."""
    mended = Mended(here)
    scrub = Scrub(here.catalog, here.quarantine, here.activity, mended.repair, MonotonicClock(), period_s=1e-9)
    task = asyncio.create_task(scrub.run())
    try:
        yield mended
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_flipped_bit_is_found_and_mended_from_a_peer(state: State, tmp_path: Path, made: Made) -> None:
    flip(made.directory / "part-000.bin", MB)
    async with peer(state, made) as one, node(state, tmp_path / "here") as here:
        await here.sees("p1")
        async with scrubbing(here) as mended:
            await asyncio.wait_for(mended.tried.wait(), 60)
        assert (mended.units, one.sent) == ([0], {0: 1})
        assert here.quarantine.corrupt_units == 1
        assert here.catalog.get(made.digest).complete
    assert verify_checkpoint(made.directory) == made.manifest
    kept = (tmp_path / "here" / QUARANTINE / f"{made.digest}.units" / "0.bin").read_bytes()
    assert len(kept) == 3 * MB + 5
    assert sum(a != b for a, b in zip(kept, made.unit(0), strict=True)) == 1


async def test_what_nobody_has_is_absent_and_the_rest_goes_on(state: State, tmp_path: Path, made: Made) -> None:
    flip(made.directory / "part-001.bin", 5)
    async with node(state, tmp_path / "here") as here:
        async with scrubbing(here) as mended:
            await asyncio.wait_for(mended.tried.wait(), 60)
        stored = here.catalog.get(made.digest)
        assert stored.units_on_disk == UNITS - {3}
        with pytest.raises(DataLoss, match="import it again"):
            await here.fetch(stored)
    assert Presence(made.directory, made.manifest).units == UNITS - {3}


async def test_it_stands_aside_while_somebody_waits_for_the_disk(state: State, tmp_path: Path, made: Made) -> None:
    flip(made.directory / "part-000.bin", MB)
    async with peer(state, made), node(state, tmp_path / "here") as here:
        await here.sees("p1")
        with here.activity.busy():
            async with scrubbing(here) as mended:
                for _ in range(20):
                    await asyncio.to_thread(lambda: None)
                assert not (tmp_path / "here" / CURSOR).exists()
        async with scrubbing(here) as mended:
            await asyncio.wait_for(mended.tried.wait(), 60)


class Telling(Activity):
    """Says when a chunk is about to be read."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def quiet(self) -> None:
        await super().quiet()
        self.asked.set()


async def test_stopped_while_it_hashes_it_lets_its_thread_come_to_an_end(
    state: State, tmp_path: Path, made: Made
) -> None:
    async with node(state, tmp_path / "here") as here:
        for _ in range(20):
            activity, mended = Telling(), Mended(here)
            scrub = Scrub(here.catalog, here.quarantine, activity, mended.repair, MonotonicClock(), period_s=1e-9)
            task = asyncio.create_task(scrub.run())
            await activity.asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_it_goes_on_where_it_stood(state: State, tmp_path: Path, made: Made) -> None:
    flip(made.directory / "part-000.bin", MB)
    flip(made.directory / "part-001.bin", 4096 + 7)
    (tmp_path / "here" / CURSOR).write_text(f"{made.digest} 00000002")
    async with peer(state, made), node(state, tmp_path / "here") as here:
        await here.sees("p1")
        async with scrubbing(here) as mended:
            while len(mended.units) < 2:
                await asyncio.wait_for(mended.tried.wait(), 60)
                mended.tried.clear()
        assert mended.units == [4, 0]


async def test_a_unit_that_a_second_look_finds_right_stays(state: State, tmp_path: Path, made: Made) -> None:
    async with node(state, tmp_path / "here") as here:
        stored = here.catalog.get(made.digest)
        await here.quarantine.on_corrupt(stored, 1, "a reader's memory was at fault")
        assert stored.complete
        assert here.quarantine.corrupt_units == 0


async def test_the_same_damage_counts_once(state: State, tmp_path: Path, made: Made) -> None:
    flip(made.directory / "part-000.bin", MB)
    async with node(state, tmp_path / "here") as here:
        stored = here.catalog.get(made.digest)
        await asyncio.gather(*(here.quarantine.on_corrupt(stored, 0, "seen by two") for _ in range(2)))
        assert here.quarantine.corrupt_units == 1
        assert stored.units_on_disk == UNITS - {0}
        part = (made.directory / "part-000.bin").read_bytes()
        assert part[: 3 * MB + 5] == bytes(3 * MB + 5)


async def test_a_deleted_checkpoint_is_no_damage(state: State, tmp_path: Path, made: Made) -> None:
    async with node(state, tmp_path / "here") as here:
        stored = here.catalog.get(made.digest)
        await here.catalog.delete(made.digest)
        await here.quarantine.on_corrupt(stored, 0, "read while it went")
        assert here.quarantine.corrupt_units == 0
