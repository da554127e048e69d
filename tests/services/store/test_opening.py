"""Open: the bytes come into shared memory once, and stay there while somebody has them open."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mesh.clients.store import Opened, StoreClient, UnitsReady
from mesh.errors import DataLoss, InvalidRequest, NoRoom, NotFound
from mesh.facts import Kind, StoreFacts, Tier
from mesh.requests import LoadProgress
from mesh.segment import map_parts
from mesh.state.connection import State
from tests.cluster import ROOT, process
from tests.services.store.made import MB, Made, flip, make
from tests.services.store.serving import SEEN_S, Serving, serving

TWO_PARTS = ((3 * MB + 5, 100, 2 * MB), (4096, 5 * MB + 1))
ONE_MB = ((MB,),)


async def fetch(opened: Opened) -> list[memoryview]:
    """The parts, mapped as a worker maps them."""
    sizes = [part.bytes for part in opened.manifest.parts]
    return [part.view for part in await map_parts(opened.shared_memory, sizes, writable=True)]


async def use(store: Serving, made: Made) -> Tier:
    """Opens and closes; the tier that the bytes came from."""
    async with store.client.open(store.address, made.digest) as opening:
        return (await opening.complete()).tier


async def test_a_process_on_the_node_maps_the_very_bytes_of_the_files(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=TWO_PARTS)
    async with serving(state, tmp_path) as store, store.client.open(store.address, made.digest) as opening:
        opened = await opening.opened()
        mapped = await fetch(opened)
        arrivals = [event async for event in opening.arrivals()]
        parts = [bytes(part) for part in mapped]
        mapped.clear()
    assert parts == list(made.parts)
    assert opened.manifest == made.manifest
    assert opened.tier is Tier.DISK
    ready = [unit for event in arrivals if isinstance(event, UnitsReady) for unit in event.units]
    assert sorted(ready) == list(range(5))
    progress = [event for event in arrivals if isinstance(event, LoadProgress)]
    assert all(event.tier is Tier.DISK and event.bytes_total == made.size_bytes for event in progress)
    done = [event.bytes_done for event in progress]
    assert done == sorted(done)


async def test_the_second_open_finds_the_bytes_in_memory(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with serving(state, tmp_path) as store:
        assert await use(store, made) is Tier.DISK
        (made.directory / "part-000.bin").unlink()  # so they cannot come from there
        async with store.client.open(store.address, made.digest) as opening:
            opened = await opening.complete()
            assert opened.tier is Tier.DRAM
            assert bytes((await fetch(opened))[0]) == made.parts[0]


async def test_concurrent_opens_read_the_disk_once(redis_url: str, client: StoreClient, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((8 * MB,) * 5,))
    async with process(Kind.STORE, redis_url=redis_url, store_dir=tmp_path, dram_bytes=64 * MB) as store:
        before = bytes_read_by(store.process.pid)
        async with AsyncExitStack() as stack:
            openings = [await stack.enter_async_context(client.open(store.address, made.digest)) for _ in range(5)]
            opened = await asyncio.gather(*(opening.complete() for opening in openings))
            assert bytes((await fetch(opened[4]))[0]) == made.parts[0]
        read = bytes_read_by(store.process.pid) - before
    assert made.size_bytes <= read < 1.5 * made.size_bytes


def bytes_read_by(pid: int) -> int:
    """Bytes that a process has asked read() and its kin for, from disk or cache."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["rchar"])


async def test_the_least_recently_used_leaves_memory_for_a_newcomer(state: State, tmp_path: Path) -> None:
    a, b, c = (make(tmp_path, seed=seed, part_units=ONE_MB) for seed in range(3))
    async with serving(state, tmp_path, dram_bytes=2 * MB) as store:
        for made in (a, b, a, c):
            await use(store, made)
        await store.mirror.until(lambda _: tier_in(store, c) is Tier.DRAM, SEEN_S)
        assert (tier_in(store, a), tier_in(store, b)) == (Tier.DRAM, Tier.DISK)
        assert facts_of(store).dram_used_bytes == 2 * MB
        assert [c.dram_bytes for c in facts_of(store).checkpoints if c.digest == b.digest] == [0]


async def test_memory_is_there_before_its_bytes_and_units_arrive_in_it_one_by_one(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((64 << 10,) * 200,))
    async with (
        serving(state, tmp_path, reader_threads=1, chunk_bytes=4096, segment_bytes=2 * MB) as store,
        store.client.open(store.address, made.digest) as opening,
    ):
        parts, batches = await fetch(await opening.opened()), 0
        async for event in opening.arrivals():
            if isinstance(event, UnitsReady):
                batches += 1
                for index in event.units:
                    unit = made.manifest.units[index]
                    assert bytes(parts[0][unit.offset : unit.offset + unit.bytes]) == made.unit(index)
        assert batches > 1
        parts.clear()


async def test_what_is_left_of_a_checkpoint_is_told_first_and_the_facts_say_how_much_it_is(
    state: State, tmp_path: Path
) -> None:
    made, other = make(tmp_path, seed=1, part_units=((MB,) * 8,)), make(tmp_path, seed=2, part_units=((3 * MB,),))
    async with serving(state, tmp_path, dram_bytes=10 * MB, segment_bytes=2 * MB) as store:
        await use(store, made)
        await use(store, other)
        (there,) = [c for c in await store.client.list(store.address) if c.summary.digest == made.digest]
        assert (there.tier, there.disk_bytes, there.dram_bytes) == (Tier.DISK, made.size_bytes, 6 * MB)
        async with store.client.open(store.address, made.digest) as opening:
            events = [event async for event in opening.arrivals() if isinstance(event, UnitsReady)]
        assert events[0].units[:6] == (0, 1, 2, 3, 4, 5)
        stat = await store.client.stat(store.address, made.digest)
        assert (stat.tier, stat.dram_bytes) == (Tier.DRAM, 8 * MB)


async def test_memory_in_use_is_never_taken_and_the_caller_hears_when_to_ask_again(
    state: State, tmp_path: Path
) -> None:
    pinned, other = (make(tmp_path, seed=seed, part_units=ONE_MB) for seed in range(2))
    async with serving(state, tmp_path, dram_bytes=MB) as store:
        async with store.client.open(store.address, pinned.digest) as opening:
            view = (await fetch(await opening.complete()))[0]
            with pytest.raises(NoRoom) as refused:
                await use(store, other)
            assert refused.value.reason == "DRAM_IN_USE"
            assert refused.value.retry_after_s == 1.0
            assert bytes(view) == pinned.parts[0]
            del view
        assert await opened_when_room(store, other) is Tier.DISK


async def test_memory_that_is_mapped_stays_as_it_is_though_the_stream_has_ended(state: State, tmp_path: Path) -> None:
    """A worker may lose its connection and go on computing: its weights must not change under it."""
    mapped, other = (make(tmp_path, seed=seed, part_units=ONE_MB) for seed in range(2))
    async with serving(state, tmp_path, dram_bytes=MB) as store:
        async with store.client.open(store.address, mapped.digest) as opening:
            view = (await fetch(await opening.complete()))[0]
        with pytest.raises(NoRoom):
            await use(store, other)
        assert bytes(view) == mapped.parts[0]
        del view
        assert await use(store, other) is Tier.DISK


HOLDER = """
import asyncio, sys
from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.segment import map_parts

async def main(address, digest):
    async with StoreClient(Channels()).open(address, digest) as opening:
        opened = await opening.complete()
        maps = await map_parts(opened.shared_memory, [opened.manifest.parts[0].bytes], writable=True)
        print("mapped", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_killed_worker_lets_go_of_its_memory(redis_url: str, client: StoreClient, tmp_path: Path) -> None:
    held, other = (make(tmp_path, seed=seed, part_units=ONE_MB) for seed in range(2))
    async with process(Kind.STORE, redis_url=redis_url, store_dir=tmp_path, dram_bytes=MB) as store:
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", HOLDER, store.address, held.digest), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert worker.stdout is not None
        assert await worker.stdout.readline() == b"mapped\n"
        with pytest.raises(NoRoom):
            async with client.open(store.address, other.digest) as opening:
                await opening.complete()
        worker.kill()
        await worker.wait()
        async with asyncio.timeout(60):
            await until_room(client, store.address, other.digest)


async def until_room(client: StoreClient, address: str, digest: str) -> Tier:
    """Opens and closes, asking again when told to."""
    while True:
        try:
            async with client.open(address, digest) as opening:
                return (await opening.complete()).tier
        except NoRoom as full:
            await asyncio.sleep(full.retry_after_s or 60)


async def opened_when_room(store: Serving, made: Made) -> Tier:
    """until_room of the store at hand."""
    async with asyncio.timeout(60):
        return await until_room(store.client, store.address, made.digest)


async def test_a_checkpoint_larger_than_the_pool_is_refused_for_good(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with serving(state, tmp_path, dram_bytes=MB) as store:
        with pytest.raises(NoRoom) as refused:
            await use(store, made)
    assert refused.value.reason == "LARGER_THAN_DRAM"
    assert refused.value.retry_after_s is None
    assert "WHIMBREL_DRAM_BYTES" in refused.value.message


async def test_a_flipped_bit_is_found_and_nobody_gets_the_bytes(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    flip(made.directory / "part-000.bin", made.manifest.units[2].offset + 70_000)
    async with serving(state, tmp_path) as store:
        await store.mirror.until(lambda _: tier_in(store, made) is Tier.DISK, SEEN_S)
        for _ in range(2):
            with pytest.raises(DataLoss, match="import it again") as lost:
                await use(store, made)
            assert lost.value.reason == "UNITS_MISSING"
        assert await store.mirror.until(lambda _: facts_of(store).corrupt_units == 1, SEEN_S)
        assert await store.mirror.until(lambda _: tier_in(store, made) is Tier.ORIGIN, SEEN_S)
    kept = (tmp_path / ".quarantine" / f"{made.digest}.units" / "2.bin").read_bytes()
    assert sum(a != b for a, b in zip(kept, made.unit(2), strict=True)) == 1


async def test_a_trusting_store_does_not_look(state: State, tmp_path: Path) -> None:
    """The negative control of the test above: without the check, the flipped bit would be served."""
    made = make(tmp_path, seed=1)
    flip(made.directory / "part-000.bin", 5)
    async with serving(state, tmp_path, verify="import") as store:
        assert await use(store, made) is Tier.DISK


async def test_a_part_truncated_while_the_store_runs_is_data_loss(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with serving(state, tmp_path) as store:
        os.truncate(made.directory / "part-000.bin", made.size_bytes - 5000)
        with pytest.raises(DataLoss):
            await use(store, made)


async def test_a_part_that_vanished_is_data_loss(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with serving(state, tmp_path) as store:
        (made.directory / "part-000.bin").unlink()
        with pytest.raises(DataLoss) as lost:
            await use(store, made)
    assert lost.value.reason == "UNREADABLE"


async def test_an_unknown_digest_is_not_found_and_a_malformed_one_is_refused(store: Serving) -> None:
    with pytest.raises(NotFound) as missing:
        async with store.client.open(store.address, "0" * 64) as opening:
            await opening.opened()
    assert missing.value.reason == "UNKNOWN_CHECKPOINT"
    for wrong in ("", "x", "../" * 20, "0" * 63, "A" * 64):
        with pytest.raises(InvalidRequest) as refused:
            async with store.client.open(store.address, wrong) as opening:
                await opening.complete()
        assert refused.value.violations[0].field == "digest"


def facts_of(store: Serving) -> StoreFacts:
    """What the cluster knows of the store now."""
    facts = store.facts()
    assert facts is not None
    return facts


def tier_in(store: Serving, made: Made) -> Tier | None:
    """Where the cluster believes the checkpoint to be."""
    facts = store.facts()
    return facts.tier_of(made.digest) if facts else None
