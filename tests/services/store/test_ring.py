"""ReadThroughRing: a checkpoint larger than the pool, through memory that is shared and small."""

import asyncio
import contextlib
import gc
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from whimbrel.store.v1 import store_pb2 as pb
from whimbrel.store.v1.store_pb2_grpc import StoreServiceStub

from mesh.clients.channel import connect, stream
from mesh.clients.store import RingReading, StoreClient
from mesh.errors import DataLoss, InvalidRequest, NoRoom, NotFound, Unsuitable
from mesh.facts import Kind
from mesh.mapping import Mapping
from mesh.segment import map_slots
from mesh.state.connection import State
from tests.cluster import process
from tests.services.store.made import MB, Made, flip, make
from tests.services.store.serving import Serving, descriptors, serving
from tests.services.store.test_tiers import shared_memory_bytes

THRICE = ((3 * MB + 5, 100, 5 * MB), (4096, 4 * MB))
SMALL = {"dram_bytes": 4 * MB, "segment_bytes": 2 * MB, "rings": 2, "ring_slots": 2}


async def units_through(reading: RingReading, slots: list[Mapping], most: int | None = None) -> dict[int, bytes]:
    """Takes what comes, giving each slot back at once; leaves after `most` slots."""
    units: dict[int, bytearray] = {}
    async with aclosing(reading.filled()) as filled:
        async for count, slot in enumerated(filled):
            data = units.setdefault(slot.unit, bytearray())
            assert len(data) == slot.offset
            data += slots[slot.slot].view[: slot.bytes]
            reading.free(slot.slot)
            if count == most:
                break
    return {unit: bytes(data) for unit, data in units.items()}


async def enumerated(items):  # type: ignore[no-untyped-def]
    """With their number, from 1."""
    count = 0
    async for item in items:
        count += 1
        yield count, item


async def all_through(client: StoreClient, address: str, made: Made) -> dict[int, bytes]:
    """Every unit."""
    units = range(len(made.manifest.units))
    async with client.read_through_ring(address, made.digest, units) as reading:
        return await units_through(reading, await map_slots(await reading.memory()))


def expected(made: Made) -> dict[int, bytes]:
    """Every unit's bytes."""
    return {unit: made.unit(unit) for unit in range(len(made.manifest.units))}


async def test_a_checkpoint_thrice_the_pool_comes_whole_and_takes_no_more_memory_than_the_ring(
    state: State, tmp_path: Path
) -> None:
    made, others_bytes = make(tmp_path, seed=1, part_units=THRICE), shared_memory_bytes()
    assert made.size_bytes >= 3 * SMALL["dram_bytes"]
    async with serving(state, tmp_path, **SMALL) as store:
        with pytest.raises(NoRoom) as refused:
            async with store.client.open(store.address, made.digest) as opening:
                await opening.complete()
        assert refused.value.reason == "LARGER_THAN_DRAM"
        assert await all_through(store.client, store.address, made) == expected(made)
        assert shared_memory_bytes() - others_bytes == 4 * MB


async def test_what_is_in_the_pool_comes_from_there(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((MB, 2 * MB),))
    async with serving(state, tmp_path, **SMALL) as store:
        async with store.client.open(store.address, made.digest) as opening:
            await opening.complete()
        (made.directory / "part-000.bin").unlink()
        (made.directory / "part-000.bin").write_bytes(b"")
        assert await all_through(store.client, store.address, made) == expected(made)


async def test_clients_that_take_nothing_hold_their_rings_and_the_next_one_gets_that_of_the_first_to_leave(
    state: State, tmp_path: Path
) -> None:
    made = make(tmp_path, seed=1, part_units=THRICE)
    async with serving(state, tmp_path, **SMALL) as store, AsyncExitStack() as stack:
        leaving = AsyncExitStack()
        for one in (leaving, stack):
            stuck = store.client.read_through_ring(store.address, made.digest, [0])
            reading = await one.enter_async_context(stuck)
            await reading.memory()
        waiting = asyncio.create_task(all_through(store.client, store.address, made))
        assert (await store.client.stat(store.address, made.digest)).manifest == made.manifest  # it goes on
        assert not waiting.done()
        await leaving.aclose()
        assert await asyncio.wait_for(waiting, 60) == expected(made)


async def test_a_client_that_is_slow_gets_the_bytes_that_it_was_promised(state: State, tmp_path: Path) -> None:
    made, other = make(tmp_path, seed=1, part_units=THRICE), make(tmp_path, seed=2, part_units=((3 * MB,),))
    async with (
        serving(state, tmp_path, **SMALL) as store,
        store.client.read_through_ring(store.address, made.digest, range(5)) as reading,
    ):
        slots = await map_slots(await reading.memory())
        filled = reading.filled()
        first, second = await anext(filled), await anext(filled)
        for _ in range(2):
            assert await all_through(store.client, store.address, other) == expected(other)
        for slot in (first, second):
            start = slot.offset
            assert slots[slot.slot].view[: slot.bytes] == made.unit(slot.unit)[start : start + slot.bytes]
        await filled.aclose()


async def test_a_client_that_vanishes_frees_all_that_it_held(state: State, tmp_path: Path) -> None:
    made, others_bytes = make(tmp_path, seed=1, part_units=THRICE), shared_memory_bytes()
    async with serving(state, tmp_path, **SMALL) as store:
        await all_through(store.client, store.address, made)
        before = descriptors()
        for most in (1, 2, 3):
            async with store.client.read_through_ring(store.address, made.digest, range(5)) as reading:
                await units_through(reading, await map_slots(await reading.memory()), most)
        assert await all_through(store.client, store.address, made) == expected(made)
        async with asyncio.timeout(60):
            while not await deleted(store, made) or descriptors() > before:
                pass  # the store hears of a client's end a moment after it
        gc.collect()  # our own mappings, which this process cannot tell from the store's
        assert shared_memory_bytes() - others_bytes <= 8 * MB


async def deleted(store: Serving, made: Made) -> bool:
    """Whether nothing pins it any more."""
    with contextlib.suppress(NotFound):
        try:
            await store.client.delete(store.address, made.digest)
        except Unsuitable:
            return False
    return True


async def test_memory_that_a_client_still_maps_is_not_filled_for_another(state: State, tmp_path: Path) -> None:
    made, other = make(tmp_path, seed=1, part_units=((2 * MB,),)), make(tmp_path, seed=2, part_units=THRICE)
    async with serving(state, tmp_path, **SMALL | {"rings": 1}) as store:
        async with store.client.read_through_ring(store.address, made.digest, [0]) as reading:
            kept = await map_slots(await reading.memory())
            (slot,) = [filled.slot async for filled in reading.filled()]
        assert await all_through(store.client, store.address, other) == expected(other)
        assert bytes(kept[slot].view) == made.unit(0)


async def test_a_corrupt_unit_never_comes_whole_through_a_ring(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=THRICE)
    flip(made.directory / "part-000.bin", 2 * MB + 5)
    async with serving(state, tmp_path, **SMALL) as store:
        with pytest.raises(DataLoss) as lost:
            await all_through(store.client, store.address, made)
        assert lost.value.reason == "CORRUPT_UNIT"


async def test_a_killed_reader_costs_nobody_anything(redis_url: str, client: StoreClient, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=THRICE)
    async with process(Kind.STORE, redis_url=redis_url, store_dir=tmp_path, **SMALL | {"rings": 1}) as store:
        async with connect(store.address) as channel:
            call = StoreServiceStub(channel).ReadThroughRing(read(made.digest, [0]))
            assert (await anext(stream(call, "the store"))).HasField("ring")
        assert await asyncio.wait_for(all_through(client, store.address, made), 60) == expected(made)


async def read(digest: str, units: list[int], *then: pb.ReadThroughRingRequest):  # type: ignore[no-untyped-def]
    """What a client says; then it says no more, and stays."""
    yield pb.ReadThroughRingRequest(read=pb.ReadUnitsRequest(digest=digest, units=units))
    for request in then:
        yield request
    await asyncio.Event().wait()


async def says(store: Serving, *requests: pb.ReadThroughRingRequest) -> None:
    """A client that says this and takes what comes."""

    async def commands():  # type: ignore[no-untyped-def]
        for request in requests:
            yield request

    async with connect(store.address) as channel:
        async for _ in stream(StoreServiceStub(channel).ReadThroughRing(commands(), timeout=20), "the store"):
            pass


async def test_what_makes_no_sense_is_refused(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=THRICE)
    asked = pb.ReadThroughRingRequest(read=pb.ReadUnitsRequest(digest=made.digest, units=[0]))
    free = pb.ReadThroughRingRequest(free=pb.SlotFree(slot=1 << 31))
    nothing = pb.ReadThroughRingRequest(read=pb.ReadUnitsRequest(digest=made.digest))
    async with serving(state, tmp_path, **SMALL) as store:
        for requests in ((), (free,), (asked, free), (asked, asked), (asked,), (nothing,)):
            with pytest.raises(InvalidRequest):
                await says(store, *requests)
        with pytest.raises(NotFound):
            await says(store, pb.ReadThroughRingRequest(read=pb.ReadUnitsRequest(digest="0" * 64, units=[0])))
        assert await all_through(store.client, store.address, made) == expected(made)
