"""Reading through slots: in order, in bounds, and never a whole unit of wrong bytes."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mesh.errors import DataLoss, InvalidRequest, Unreachable
from services.store.reads import Reading
from services.store.ring import SlotFilled
from tests.services.store.inside import Peer, inside, partly
from tests.services.store.made import MB, Made, changed, flip, make
from tests.services.store.test_loads import hide

UNITS = ((3 * MB + 5, 100, 2 * MB, 4096), (MB, 1))
SLOT = 64 << 10


@contextmanager
def slots(count: int) -> Iterator[list[memoryview]]:
    """Memory of our own."""
    with mmap.mmap(-1, count * SLOT) as memory, memoryview(memory) as view:
        parts = [view[start : start + SLOT] for start in range(0, len(view), SLOT)]
        yield parts
        for part in parts:
            part.release()


class Taker:
    """Puts units together as they come; frees a slot once `behind` more have come."""

    def __init__(self, made: Made, memory: list[memoryview], *, behind: int = 0) -> None:
        self.made, self.memory, self.behind = made, memory, behind
        self.units: list[tuple[int, bytearray]] = []
        self.held: list[int] = []

    async def take(self, reading: Reading) -> None:
        """All of it."""
        async for slot in reading.filled():
            self.put(slot)
            self.held.append(slot.slot)
            while len(self.held) > self.behind:
                reading.free(self.held.pop(0))

    def put(self, slot: SlotFilled) -> None:
        """One slot's bytes."""
        if slot.offset == 0:
            self.units.append((slot.unit, bytearray()))
        assert self.units[-1][0] == slot.unit
        assert len(self.units[-1][1]) == slot.offset
        self.units[-1][1].extend(self.memory[slot.slot][: slot.bytes])

    @property
    def whole(self) -> list[int]:
        """The units of which all bytes came."""
        return [unit for unit, data in self.units if len(data) == self.made.manifest.units[unit].bytes]

    def check(self, asked: list[int]) -> None:
        """Exactly these, in that order, byte for byte."""
        assert [(unit, bytes(data)) for unit, data in self.units] == [(unit, self.made.unit(unit)) for unit in asked]


@pytest.mark.parametrize("behind", [0, 3])
async def test_units_go_through_few_slots_in_the_order_asked_for(tmp_path: Path, behind: int) -> None:
    made, asked = make(tmp_path, seed=1, part_units=UNITS), [4, 0, 2, 1, 3, 5, 0]
    async with inside(tmp_path, dram_bytes=MB, chunk_bytes=4096) as store:
        with slots(4) as memory:
            taker = Taker(made, memory, behind=behind)
            async with store.reads.through(store.catalog.get(made.digest), asked, memory) as reading:
                await taker.take(reading)
            taker.check(asked)
        assert store.dram.used_bytes == 0


async def test_what_is_in_memory_comes_from_there_also_from_another_version(tmp_path: Path) -> None:
    old = make(tmp_path, seed=1, part_units=UNITS)
    new = changed(tmp_path, old, units=[2], seed=5)
    async with inside(tmp_path) as store:
        await store.use(old)
        before, asked = store.loads.tally, list(range(6))
        with slots(3) as memory:
            taker = Taker(new, memory)
            async with store.reads.through(store.catalog.get(new.digest), asked, memory) as reading:
                await taker.take(reading)
            taker.check(asked)
        assert store.loads.tally.disk_bytes - before.disk_bytes == new.manifest.units[2].bytes


async def test_units_are_awaited_while_they_are_fetched(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=UNITS)
    peer = Peer(make(tmp_path / "peer", seed=1, part_units=UNITS))
    hide(made, [1, 2])
    async with inside(tmp_path, fetcher=peer) as store:
        stored = partly(store.catalog.get(made.digest), {0, 3, 4, 5})
        with slots(4) as memory:
            taker = Taker(made, memory)
            async with store.reads.through(stored, list(range(6)), memory) as reading:
                await peer.calls.acquire()
                peer.go_on.set()
                await taker.take(reading)
            taker.check(list(range(6)))
        assert peer.asked == [((1, 2), True)]


async def test_a_fetch_that_fails_ends_the_reading(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=UNITS)
    peer = Peer(made, lost=True)
    peer.go_on.set()
    async with inside(tmp_path, fetcher=peer) as store:
        stored = partly(store.catalog.get(made.digest), {0})
        with slots(4) as memory:
            async with store.reads.through(stored, [0, 1], memory) as reading:
                with pytest.raises(Unreachable):
                    await Taker(made, memory).take(reading)


@pytest.mark.parametrize("where", [0, 2 * MB + 77, 3 * MB + 4])
async def test_a_corrupt_unit_never_comes_whole(tmp_path: Path, where: int) -> None:
    made = make(tmp_path, seed=1, part_units=UNITS)
    flip(made.directory / "part-000.bin", where)
    async with inside(tmp_path) as store:
        with slots(4) as memory:
            taker = Taker(made, memory)
            async with store.reads.through(store.catalog.get(made.digest), [1, 0, 3], memory) as reading:
                with pytest.raises(DataLoss) as lost:
                    await taker.take(reading)
        assert lost.value.reason == "CORRUPT_UNIT"
        assert taker.whole == [1]
        assert 0 not in store.catalog.get(made.digest).units_on_disk


async def test_who_takes_nothing_costs_his_own_slots_and_nobody_else_anything(tmp_path: Path) -> None:
    made, other = make(tmp_path, seed=1, part_units=UNITS), make(tmp_path, seed=2, part_units=((8 * MB,),))
    async with inside(tmp_path, threads=1) as store:
        with slots(2) as memory, slots(2) as more:
            async with store.reads.through(store.catalog.get(made.digest), [0], memory) as stuck:
                filled = stuck.filled()
                held = [await anext(filled), await anext(filled)]
                assert {slot.slot for slot in held} == {0, 1}
                await store.use(other)  # the one reader is free
                taker = Taker(made, more)
                async with store.reads.through(store.catalog.get(made.digest), [0], more) as quick:
                    await taker.take(quick)
                taker.check([0])
                for slot in held:
                    assert bytes(memory[slot.slot]) == made.unit(0)[slot.offset : slot.offset + SLOT]
                await filled.aclose()


async def test_who_leaves_frees_everything(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=UNITS)
    async with inside(tmp_path) as store:
        with slots(2) as memory:
            async with store.reads.through(store.catalog.get(made.digest), [0], memory) as reading:
                filled = reading.filled()
                await anext(filled)
                await filled.aclose()
            memory[0][:] = memory[1][:] = bytes(SLOT)
            await store.use(made)  # readers that were still at it would write
            assert bytes(memory[0]) == bytes(memory[1]) == bytes(SLOT)
        assert not store.pins.held(made.digest)


async def test_only_a_filled_slot_can_be_given_back_and_only_once(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=UNITS)
    async with inside(tmp_path) as store:
        with slots(2) as memory:
            async with store.reads.through(store.catalog.get(made.digest), [0], memory) as reading:
                filled = reading.filled()
                slot = (await anext(filled)).slot
                reading.free(slot)
                for wrong in (slot, 7, 1 << 31):
                    with pytest.raises(InvalidRequest):
                        reading.free(wrong)
                await filled.aclose()
