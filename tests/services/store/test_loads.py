"""Loads: exactly what is missing, from the nearest place; joined, cancelled, and never at the cost of memory."""

import asyncio
import threading
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.errors import DataLoss, NoRoom, Unreachable
from mesh.facts import Tier
from services.store.catalog import Stored
from services.store.fill import Tally
from services.store.loads import Opening, Step
from services.store.turns import Urgency
from tests.services.store.inside import SEGMENT, Inside, Peer, bytes_in, inside, partly, until_moved
from tests.services.store.made import MB, Made, changed, flip, make, manifest_of, write

ONE_MB = ((MB,),)
SIX_UNITS = ((MB, 3 * MB + 5, 100, 2 * MB, 4096, 2 * MB),)


def read_since(store: Inside, before: Tally) -> tuple[int, int, int]:
    """Bytes from memory, from disk, and from afar."""
    now = store.loads.tally
    return (
        now.memory_bytes - before.memory_bytes,
        now.disk_bytes - before.disk_bytes,
        now.fetched_bytes - before.fetched_bytes,
    )


async def steps(opening: Opening) -> list[Step]:
    """All of them."""
    return [step async for step in opening.steps()]


async def test_every_unit_is_told_of_once_after_its_bytes_are_there(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=(*SIX_UNITS, (MB, 5)))
    async with inside(tmp_path, chunk_bytes=64 << 10) as store:
        async with store.loads.open(store.catalog.get(made.digest)) as opening:
            resident, told = await opening.memory(), []
            async for step in opening.steps():
                for index in step.units:
                    unit = made.manifest.units[index]
                    memory = resident.parts[unit.part]
                    assert bytes_in(memory, unit.offset, unit.bytes) == made.unit(index)
                told += step.units
            await opening.complete()
        assert sorted(told) == list(range(8))
        assert store.content(made) == made.parts


async def test_a_half_resident_checkpoint_loads_exactly_the_missing_units(tmp_path: Path) -> None:
    made, other = make(tmp_path, seed=1, part_units=SIX_UNITS), make(tmp_path, seed=2, part_units=((3 * MB,),))
    async with inside(tmp_path, dram_bytes=10 * MB) as store:
        await store.use(made)
        await store.use(other)  # the tail must go: 3 MB are wanted, and (with the last segment of 100 kB) 2 free
        resident = store.resident(made)
        assert 0 < len(resident.units) < 6
        assert sorted(resident.units) == list(range(len(resident.units)))  # the head stays
        missing = sum(end - start for start, end in (resident.extents[unit] for unit in resident.missing()))
        here, before = resident.units.copy(), store.loads.tally
        async with store.loads.open(store.catalog.get(made.digest)) as opening:
            first, *_ = await steps(opening)
            await opening.complete()
            assert opening.tier is Tier.DISK
        assert set(first.units) >= here  # those that were there come first
        assert first.bytes_done >= made.size_bytes - missing
        assert read_since(store, before) == (0, missing, 0)
        assert store.content(made) == made.parts


async def test_a_new_version_reads_from_disk_exactly_what_has_changed(tmp_path: Path) -> None:
    old = make(tmp_path, seed=1, part_units=SIX_UNITS)
    new = changed(tmp_path, old, units=[3], seed=9)
    async with inside(tmp_path, chunk_bytes=64 << 10) as store:
        await store.use(old)
        before = store.loads.tally
        assert await store.use(new) is Tier.DISK
        assert read_since(store, before) == (new.size_bytes - 2 * MB, 2 * MB, 0)
        assert store.content(new) == new.parts
        before = store.loads.tally
        assert await store.use(old) is Tier.DRAM  # a rollback
        assert read_since(store, before) == (0, 0, 0)


async def test_units_that_are_copied_from_memory_are_copied_whatever_segments_they_lie_in(tmp_path: Path) -> None:
    old = make(tmp_path, seed=1, part_units=((SEGMENT - 4096, 3 * SEGMENT + 7, 100),))
    shifted = make(tmp_path, seed=2, part_units=((8192, 5),))
    new = moved(tmp_path, old, shifted)
    async with inside(tmp_path, chunk_bytes=64 << 10) as store:
        await store.use(old)
        (old.directory / "part-000.bin").unlink()
        before = store.loads.tally
        await store.use(new)
        assert store.content(new) == new.parts
        assert read_since(store, before) == (old.size_bytes, shifted.size_bytes, 0)


def moved(root: Path, old: Made, head: Made) -> Made:
    """A checkpoint of `head`'s units, then `old`'s, which lie at other offsets there."""
    by = head.size_bytes
    units = [
        *head.manifest.units,
        *(replace(u, name=f"old {u.name}", offset=u.offset + by) for u in old.manifest.units),
    ]
    content = head.parts[0] + old.parts[0]
    return write(root, manifest_of(units, [content]), (content,))


async def test_a_load_that_nobody_waits_for_stops_and_keeps_what_has_arrived(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((64 << 10,) * 256,))
    async with inside(tmp_path, threads=1, chunk_bytes=4096) as store:
        async with store.loads.open(store.catalog.get(made.digest)) as opening:
            async for step in opening.steps():
                if step.units:
                    break
        read = store.loads.tally  # taken before the readers have let go, perhaps
        assert await store.use(made) is Tier.DISK
        resumed = store.loads.tally.disk_bytes
        assert resumed < made.size_bytes + 64 * 4096 + (64 << 10)  # at most the unit that was cut off is read again
        assert read.disk_bytes <= resumed
        assert store.content(made) == made.parts


async def test_a_load_that_is_cancelled_before_anything_arrived_gives_all_its_memory_back(tmp_path: Path) -> None:
    left, other = (make(tmp_path, seed=seed, part_units=((32 * MB,),)) for seed in range(2))
    async with inside(tmp_path, dram_bytes=32 * MB, threads=1, chunk_bytes=4096) as store:
        async with store.loads.open(store.catalog.get(left.digest)) as opening:
            await until_moved(opening)
        assert await store.use(other) is Tier.DISK  # it has all the memory there is, at once
        assert not store.pins.held(left.digest)
        assert store.content(other) == other.parts
        assert store.dram.get(left.digest) is None


async def test_a_load_goes_on_for_those_who_still_wait(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((16 * MB,),))
    async with inside(tmp_path, threads=1, chunk_bytes=4096) as store:
        stored = store.catalog.get(made.digest)
        async with store.loads.open(stored) as patient:
            async with store.loads.open(stored) as hasty:
                await until_moved(hasty)
            await patient.complete()
            assert store.content(made) == made.parts
        assert store.loads.tally.disk_bytes == made.size_bytes


async def test_progress_only_grows_and_there_is_not_too_much_of_it(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((32 * MB,),))
    async with inside(tmp_path, threads=2, chunk_bytes=4096) as store:
        began_s = asyncio.get_running_loop().time()
        async with store.loads.open(store.catalog.get(made.digest)) as opening:
            done = [step.bytes_done for step in await steps(opening)]
        took_s = asyncio.get_running_loop().time() - began_s
    assert done == sorted(done)
    assert 1 <= len(done) <= 4 + took_s * 20
    assert done[-1] <= made.size_bytes


async def test_the_end_of_a_use_counts_as_a_use(tmp_path: Path) -> None:
    a, b, c = (make(tmp_path, seed=seed, part_units=ONE_MB) for seed in range(3))
    async with inside(tmp_path, dram_bytes=2 * MB) as store:
        async with store.loads.open(store.catalog.get(a.digest)) as opening:
            await opening.complete()
            await store.use(b)
            store.clock.turn(1)
        await store.use(c)
        assert (store.dram.holds(a.digest), store.dram.holds(b.digest)) == (True, False)


class Plug:
    """Work that keeps a reader until it is let go, so that several loads can be there before the first is served."""

    bytes = 1

    def __init__(self) -> None:
        self.exhausted, self.held, self.go_on = False, threading.Event(), threading.Event()

    def take(self) -> "Plug | None":
        """Itself, once."""
        exhausted, self.exhausted = self.exhausted, True
        return None if exhausted else self

    def run(self) -> None:
        """Waits."""
        self.held.set()
        assert self.go_on.wait(20)


@pytest.mark.parametrize("count", [2, 4])
async def test_loads_that_run_together_come_at_the_same_pace(tmp_path: Path, count: int) -> None:
    size, chunk, plug = 4 * MB, 16 << 10, Plug()
    made = [make(tmp_path, seed=seed, part_units=((MB,) * 4,)) for seed in range(count)]
    async with inside(tmp_path, threads=1, chunk_bytes=chunk) as store, AsyncExitStack() as stack:
        working = store.pipeline.working(plug, Urgency(urgent=True))
        await stack.enter_async_context(working)
        await asyncio.to_thread(plug.held.wait, 20)
        opens = [store.loads.open(store.catalog.get(one.digest)) for one in made]
        openings = [await stack.enter_async_context(opened) for opened in opens]
        for opening in openings:
            await opening.memory()
        for _ in range(10):
            await asyncio.sleep(
                0
            )  # from its memory to its place among the readers, a load takes some turns of the loop
        plug.go_on.set()
        waits = [asyncio.ensure_future(opening.complete()) for opening in openings]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        read = sum(store.dram.bytes_of(one.digest) for one in made)  # whole units
        assert read >= count * (size - MB)  # nobody is more than the unit at hand behind
        await asyncio.gather(*waits)
        assert all(store.content(one) == one.parts for one in made)


async def test_a_prefetch_is_behind_a_load_until_a_request_waits_for_it(tmp_path: Path) -> None:
    first, second = (make(tmp_path, seed=seed, part_units=((8 * MB,),)) for seed in range(2))
    async with inside(tmp_path, threads=1, chunk_bytes=4096) as store:
        stored = store.catalog.get(first.digest)
        async with store.loads.prefetch(stored, Tier.DRAM) as prefetch:
            assert await store.use(second) is Tier.DISK
            assert store.loads.tally.disk_bytes < first.size_bytes + second.size_bytes  # it was not there first
            async with store.loads.open(stored) as opening:
                await opening.complete()
            await prefetch.complete()
        assert store.content(first) == first.parts
        assert store.loads.tally.disk_bytes == first.size_bytes + second.size_bytes


async def test_who_leaves_a_prefetch_gives_it_up_unless_a_request_waits(tmp_path: Path) -> None:
    given_up, wanted = (make(tmp_path, seed=seed, part_units=((8 * MB,),)) for seed in range(2))
    async with inside(tmp_path, threads=1, chunk_bytes=4096) as store:
        async with store.loads.prefetch(store.catalog.get(given_up.digest), Tier.DRAM) as prefetch:
            await until_moved(prefetch)
        stored = store.catalog.get(wanted.digest)
        async with store.loads.prefetch(stored, Tier.DRAM) as prefetch:
            await until_moved(prefetch)
            opened = store.loads.open(stored)
            opening = await opened.__aenter__()
        await opening.complete()
        await opened.__aexit__(None, None, None)
        assert store.dram.get(given_up.digest) is None
        assert store.content(wanted) == wanted.parts


async def test_a_corrupt_unit_without_anybody_to_fetch_it_fails_the_load_and_the_others_stay(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=SIX_UNITS)
    flip(made.directory / "part-000.bin", made.manifest.units[1].offset + 70_000)
    async with inside(tmp_path) as store:
        with pytest.raises(DataLoss) as lost:
            await store.use(made)
        assert lost.value.reason == "CORRUPT_UNIT"
        assert 1 not in store.resident(made).units
        assert store.catalog.get(made.digest).units_on_disk == {*range(6)} - {1}


async def test_a_corrupt_unit_is_fetched_and_the_load_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path, seed=1, part_units=SIX_UNITS)
    flip(made.directory / "part-000.bin", made.manifest.units[1].offset + 70_000)
    peer, corrupt = Peer(made), list[tuple[str, int, bool]]()
    peer.go_on.set()

    async def noted(stored: Stored, unit: int, why: str) -> None:
        corrupt.append((stored.manifest.digest, unit, "hash" in why))

    async with inside(tmp_path, fetcher=peer, on_corrupt=noted) as store:
        assert await store.use(made) is Tier.DISK
        assert corrupt == [(made.digest, 1, True)]
        assert peer.asked == [((1,), True)]
        assert store.content(made) == made.parts


async def test_units_that_are_not_on_this_node_are_fetched_and_the_others_read(tmp_path: Path) -> None:
    made, peer = (
        make(tmp_path, seed=1, part_units=SIX_UNITS),
        Peer(make(tmp_path / "peer", seed=1, part_units=SIX_UNITS)),
    )
    hide(made, [1, 4])
    peer.go_on.set()
    async with inside(tmp_path, fetcher=peer) as store:
        stored = partly(store.catalog.get(made.digest), {0, 2, 3, 5})
        async with store.loads.open(stored) as opening:
            assert opening.tier is Tier.ORIGIN
            told = await steps(opening)
            await opening.complete()
        assert sorted(unit for step in told for unit in step.units) == list(range(6))
        assert store.content(made) == made.parts
        absent = sum(end - start for start, end in (store.resident(made).extents[unit] for unit in (1, 4)))
        assert read_since(store, Tally()) == (0, made.size_bytes - absent, absent)
        assert peer.asked == [((1, 4), True)]


def hide(made: Made, units: list[int]) -> None:
    """Overwrites what is not to be read from this disk."""
    for index in units:
        unit = made.manifest.units[index]
        with (made.directory / made.manifest.parts[unit.part].file).open("r+b") as file:
            file.seek(unit.offset)
            file.write(bytes(unit.bytes))


async def test_a_prefetch_to_disk_fetches_what_is_absent_in_no_hurry_until_a_request_waits(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=SIX_UNITS)
    here, peer = {0, 1}, Peer(made)
    async with inside(tmp_path, fetcher=peer) as store:
        stored = partly(store.catalog.get(made.digest), here)
        async with store.loads.prefetch(stored, Tier.DISK) as prefetch:
            peer.go_on.set()
            (*_, last) = await steps(prefetch)
            await prefetch.complete()
        assert last.bytes_done == made.size_bytes
        assert peer.asked == [((2, 3, 4, 5), False)]
        assert store.dram.get(made.digest) is None


async def test_a_fetch_is_asked_for_anew_in_a_hurry_when_a_request_begins_to_wait(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=SIX_UNITS)
    peer = Peer(made)
    async with inside(tmp_path, fetcher=peer) as store:
        stored = partly(store.catalog.get(made.digest), {0, 1})
        async with store.loads.prefetch(stored, Tier.DRAM):
            await peer.calls.acquire()
            async with store.loads.open(stored) as opening:
                await peer.calls.acquire()
                peer.go_on.set()
                await opening.complete()
        assert peer.asked == [((2, 3, 4, 5), False), ((2, 3, 4, 5), True)]
        assert store.content(made) == made.parts


async def test_a_fetch_that_fails_fails_the_load_and_what_arrived_stays(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=SIX_UNITS)
    peer = Peer(made, lost=True)
    async with inside(tmp_path, fetcher=peer, threads=1) as store:
        stored = partly(store.catalog.get(made.digest), {0, 1, 2, 3, 4})
        async with store.loads.open(stored) as opening:
            async for step in opening.steps():
                if 4 in step.units:
                    peer.go_on.set()
            with pytest.raises(Unreachable):
                await opening.complete()
        peer.lost, before = False, store.loads.tally
        async with store.loads.open(stored) as opening:
            await opening.complete()
        assert read_since(store, before) == (0, 0, 2 * MB)
        assert store.content(made) == made.parts


async def test_a_unit_that_nobody_has_is_data_loss(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with inside(tmp_path) as store:
        with pytest.raises(DataLoss) as lost:
            async with store.loads.open(partly(store.catalog.get(made.digest), {0})) as opening:
                await opening.complete()
        assert lost.value.reason == "UNITS_MISSING"


async def test_padding_and_odd_sizes_come_out_right(tmp_path: Path) -> None:
    sizes = (1, 4095, 4096, 4097, 8191, 65536, 65537, 1)
    made = make(tmp_path, seed=7, part_units=(sizes, sizes[::-1]))
    for chunk_bytes in (4096, 12288, 16384, MB):
        async with inside(tmp_path, chunk_bytes=chunk_bytes) as store:
            await store.use(made)
            assert store.content(made) == made.parts
            assert store.loads.tally.disk_bytes == made.size_bytes


async def test_a_part_of_many_segments_comes_out_right_whatever_the_size_of_a_chunk(tmp_path: Path) -> None:
    made = make(tmp_path, seed=7, part_units=((3 * MB + 5, 3 * MB, 12288, 5 * MB),))
    for chunk_bytes in (12288, MB, 3 * MB, 8 * MB):
        async with inside(tmp_path, chunk_bytes=chunk_bytes) as store:
            await store.use(made)
            assert store.content(made) == made.parts


async def test_a_trusting_store_tells_of_units_all_the_same(tmp_path: Path) -> None:
    made = make(tmp_path, seed=7, part_units=SIX_UNITS)
    async with inside(tmp_path, verify=False, chunk_bytes=64 << 10) as store:
        await store.use(made)
        assert store.dram.holds(made.digest)
        assert store.content(made) == made.parts


async def test_memory_that_others_use_is_not_taken(tmp_path: Path) -> None:
    used, other = (make(tmp_path, seed=seed, part_units=((3 * MB,),)) for seed in range(2))
    async with inside(tmp_path, dram_bytes=5 * MB) as store:
        async with store.loads.open(store.catalog.get(used.digest)) as opening:
            await opening.complete()
            with pytest.raises(NoRoom) as refused:
                await store.use(other)
        assert refused.value.reason == "DRAM_IN_USE"
        assert store.dram.used_bytes == 3 * MB
