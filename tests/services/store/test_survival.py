"""Real stores on different nodes, killed at bad moments: nothing wrong is ever served, nothing is fetched twice."""

import asyncio
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from mesh.checkpoint.verify import verify_checkpoint
from mesh.clients.store import StoreClient
from mesh.errors import DataLoss, Unreachable, Unsuitable
from mesh.facts import CheckpointFacts, Kind, Tier
from mesh.state.connection import State
from mesh.state.mirror import Mirror
from services.store.presence import JOURNAL, Presence, extents
from tests.cluster import ROOT, Started, process
from tests.services.store.killed import WORKS
from tests.services.store.made import MB, Made, changed, flip, make
from tests.services.store.peer import peer
from tests.services.store.proxy import Proxy, proxy
from tests.services.store.test_opening import fetch

PARTS = ((3 * MB + 5, 100, 2 * MB), (4096, 20 * MB + 1, 20 * MB))
UNITS = range(6)
SEEN_S = 60.0
Start = Callable[..., AbstractAsyncContextManager[Started]]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A checkpoint that lies somewhere else."""
    return make(tmp_path / "elsewhere", seed=1, part_units=PARTS)


@pytest.fixture
def start(redis_url: str, cluster: str) -> Start:
    """Starts a store's process on a directory and a node of its own."""

    def started(directory: Path, name: str, **settings: object) -> AbstractAsyncContextManager[Started]:
        own = {"redis_url": redis_url, "cluster": cluster, "store_dir": directory, "id": name, "node": f"node-{name}"}
        return process(Kind.STORE, **(own | {"dram_bytes": 64 << 20, "lease_s": 60} | settings))

    return started


@pytest.fixture
async def mirror(state: State) -> AsyncIterator[Mirror]:
    """The cluster as anybody sees it."""
    async with Mirror(state).running() as running:
        yield running


async def facts_of(mirror: Mirror, name: str, digest: str, seen: Callable[[CheckpointFacts], bool]) -> None:
    """Waits until a store says so of a checkpoint."""

    def shown(_: object) -> bool:
        member = mirror.facts.members.get(f"store/{name}")
        held = member.store.checkpoints if member and member.store else ()
        return any(one.digest == digest and seen(one) for one in held)

    assert await mirror.until(shown, SEEN_S)


async def read(client: StoreClient, store: Started, made: Made, units: Sequence[int]) -> None:
    """Whole units, which must be right."""
    got: dict[int, bytearray] = {}
    async for chunk in client.read_units(store.address, made.digest, units):
        got.setdefault(chunk.unit, bytearray()).extend(chunk.data)
    assert {unit: bytes(data) for unit, data in got.items()} == {unit: made.unit(unit) for unit in units}


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@asynccontextmanager
async def behind(
    between: Proxy, start: Start, directory: Path, name: str, **settings: object
) -> AsyncIterator[Started]:
    """A store that others reach through a proxy."""
    port = free_port()
    between.target = f"127.0.0.1:{port}"
    async with start(directory, name, port=port, advertise=between.address, **settings) as store:
        yield store


async def test_a_store_fetches_from_another_node_exactly_what_is_missing(
    start: Start, client: StoreClient, mirror: Mirror, tmp_path: Path, made: Made
) -> None:
    new = changed(tmp_path / "elsewhere", made, units=(1, 3), seed=2)
    async with proxy() as between, behind(between, start, tmp_path / "elsewhere", "a"):
        await facts_of(mirror, "a", new.digest, lambda held: held.tier is Tier.DISK)
        async with start(tmp_path / "here", "b") as b:
            assert (await client.stat(b.address, made.digest)).tier is Tier.ORIGIN
            await read(client, b, made, [0, 2])
            await facts_of(mirror, "b", made.digest, lambda held: 5 * MB < held.disk_bytes < 6 * MB)
            before = between.passed_bytes
            await read(client, b, made, [*UNITS])
            lacking = sum(made.manifest.units[unit].bytes for unit in (1, 3, 4, 5))
            assert lacking <= between.passed_bytes - before < lacking + MB
            await facts_of(mirror, "b", made.digest, lambda held: held.tier is Tier.DISK)
            before = between.passed_bytes
            await client.stat(b.address, new.digest)
            await read(client, b, new, [*UNITS])
            moved = sum(new.manifest.units[unit].bytes for unit in (1, 3))
            assert moved < between.passed_bytes - before < moved + 64 * 1024  # its manifest comes, too
    assert verify_checkpoint(tmp_path / "here" / made.digest) == made.manifest
    assert verify_checkpoint(tmp_path / "here" / new.digest) == new.manifest


async def test_what_another_node_has_is_opened_here_evicted_and_prefetched_without_crossing_twice(
    start: Start, client: StoreClient, mirror: Mirror, tmp_path: Path, made: Made
) -> None:
    async with proxy() as between, behind(between, start, tmp_path / "elsewhere", "a"):
        await facts_of(mirror, "a", made.digest, lambda held: held.tier is Tier.DISK)
        async with start(tmp_path / "here", "b") as b:
            async with client.open(b.address, made.digest) as opening:
                opened = await opening.complete()
                assert opened.tier is Tier.ORIGIN
                assert [bytes(part) for part in await fetch(opened)] == list(made.parts)
            await facts_of(mirror, "b", made.digest, lambda held: held.disk_bytes == held.dram_bytes == made.size_bytes)
            before = between.passed_bytes
            assert await client.evict(b.address, made.digest, Tier.DISK) == made.size_bytes
            await facts_of(mirror, "b", made.digest, lambda held: (held.disk_bytes, held.tier) == (0, Tier.DRAM))
            async with client.open(b.address, made.digest) as opening:
                assert (await opening.complete()).tier is Tier.DRAM
            assert [step.bytes_total async for step in client.prefetch(b.address, made.digest, Tier.DISK)]
            await facts_of(mirror, "b", made.digest, lambda held: held.disk_bytes == made.size_bytes)
            assert between.passed_bytes - before < 64 * 1024
            with pytest.raises(Unsuitable) as refused:
                await client.evict(between.target, made.digest, Tier.DISK)
            assert refused.value.reason == "ONLY_COPY"
    assert verify_checkpoint(tmp_path / "here" / made.digest) == made.manifest


async def test_damage_that_a_load_finds_is_fetched_from_another_node_and_the_load_goes_on(
    start: Start, client: StoreClient, mirror: Mirror, tmp_path: Path, made: Made
) -> None:
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "here")
    flip(tmp_path / "here" / made.digest / "part-001.bin", 30 * MB)
    async with start(tmp_path / "elsewhere", "a"):
        await facts_of(mirror, "a", made.digest, lambda held: held.tier is Tier.DISK)
        async with start(tmp_path / "here", "b", scrub_period_s=0, verify="always") as b:
            async with client.open(b.address, made.digest) as opening:
                assert [bytes(part) for part in await fetch(await opening.complete())] == list(made.parts)
            await corrupt_units(mirror, "b", lambda count: count == 1)
    assert verify_checkpoint(tmp_path / "here" / made.digest) == made.manifest


async def test_when_the_store_that_serves_is_killed_midway_another_brings_the_rest(
    start: Start, client: StoreClient, mirror: Mirror, tmp_path: Path, made: Made
) -> None:
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "spare")
    async with (
        proxy() as between,
        behind(between, start, tmp_path / "elsewhere", "a") as a,
        start(tmp_path / "spare", "c"),
    ):
        await facts_of(mirror, "a", made.digest, lambda held: held.tier is Tier.DISK)
        await facts_of(mirror, "c", made.digest, lambda held: held.tier is Tier.DISK)
        async with start(tmp_path / "here", "b") as b:
            await client.stat(b.address, made.digest)
            between.limit_bytes = between.passed_bytes + 2 * MB
            reading = asyncio.ensure_future(read(client, b, made, [*UNITS]))
            await asyncio.wait_for(between.held.wait(), SEEN_S)
            await a.kill()
            between.cut()
            await reading
    assert verify_checkpoint(tmp_path / "here" / made.digest) == made.manifest


async def test_a_store_that_is_killed_while_it_fetches_goes_on_where_it_was(  # noqa: PLR0917
    start: Start, client: StoreClient, mirror: Mirror, state: State, tmp_path: Path, made: Made
) -> None:
    here = tmp_path / "here"
    async with peer(state, made) as one:
        stuck = asyncio.Event()

        async def stop(unit: int) -> None:
            if unit >= 4:
                stuck.set()
                await asyncio.Event().wait()

        one.pause = stop
        async with start(here, "b") as b:
            await client.stat(b.address, made.digest)
            reading = asyncio.ensure_future(read(client, b, made, [*UNITS]))
            await stuck.wait()
            first_four = sum(extents(made.manifest)[:4])
            await facts_of(mirror, "b", made.digest, lambda held: held.disk_bytes == first_four)
            await b.kill()
            with pytest.raises(Unreachable):
                await reading
        assert Presence(here / made.digest, made.manifest).units == {0, 1, 2, 3}
        one.pause = lambda unit: asyncio.sleep(0)
        async with start(here, "b2") as b:
            await read(client, b, made, [*UNITS])
        assert one.sent == dict.fromkeys(UNITS, 1)
    assert verify_checkpoint(here / made.digest) == made.manifest
    assert not (here / made.digest / JOURNAL).exists()


async def test_a_store_whose_disk_lies_is_found_out_by_the_one_that_fetches(
    start: Start, client: StoreClient, mirror: Mirror, tmp_path: Path, made: Made
) -> None:
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "spare")
    for part in made.manifest.parts:
        for unit in made.manifest.units:
            if made.manifest.parts[unit.part] is part:
                flip(made.directory / part.file, unit.offset + 7)
    async with (
        start(tmp_path / "elsewhere", "a", verify="import"),  # trusts its disk
        start(tmp_path / "spare", "c"),
    ):
        await facts_of(mirror, "a", made.digest, lambda held: held.tier is Tier.DISK)
        await facts_of(mirror, "c", made.digest, lambda held: held.tier is Tier.DISK)
        async with start(tmp_path / "here", "b") as b:
            await client.stat(b.address, made.digest)
            await read(client, b, made, [*UNITS])
            await corrupt_units(mirror, "b", lambda count: count >= 1)
    assert verify_checkpoint(tmp_path / "here" / made.digest) == made.manifest


async def corrupt_units(mirror: Mirror, name: str, seen: Callable[[int], bool]) -> None:
    """Waits until a store has counted so many."""

    def shown(_: object) -> bool:
        member = mirror.facts.members.get(f"store/{name}")
        return bool(member and member.store and seen(member.store.corrupt_units))

    assert await mirror.until(shown, SEEN_S)


async def test_the_scrub_mends_a_stores_disk_from_another_node(
    start: Start, mirror: Mirror, tmp_path: Path, made: Made
) -> None:
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "here")
    flip(tmp_path / "here" / made.digest / "part-001.bin", 10 * MB)
    async with start(tmp_path / "elsewhere", "a"):
        await facts_of(mirror, "a", made.digest, lambda held: held.tier is Tier.DISK)
        async with start(tmp_path / "here", "b", scrub_period_s=0.001):
            await corrupt_units(mirror, "b", lambda count: count == 1)
            await facts_of(mirror, "b", made.digest, lambda held: held.tier is Tier.DISK)
    assert verify_checkpoint(tmp_path / "here" / made.digest) == made.manifest


async def test_a_full_disk_lets_go_of_what_another_node_keeps(
    start: Start, client: StoreClient, mirror: Mirror, tmp_path: Path, made: Made
) -> None:
    other = make(tmp_path / "elsewhere", seed=2, part_units=((4 * MB, 4 * MB),))
    shutil.copytree(made.directory, tmp_path / "here" / made.digest)
    async with start(tmp_path / "elsewhere", "a"):
        await facts_of(mirror, "a", other.digest, lambda held: held.tier is Tier.DISK)
        capacity = made.size_bytes + MB
        async with start(tmp_path / "here", "b", disk_bytes=capacity) as b:
            await client.stat(b.address, other.digest)
            await read(client, b, other, [0, 1])
            await facts_of(
                mirror, "b", made.digest, lambda held: held.disk_bytes == made.size_bytes - extents(made.manifest)[5]
            )
            member = mirror.facts.members["store/b"].store
            assert member is not None
            assert member.disk_used_bytes <= capacity == member.disk_capacity_bytes
    assert verify_checkpoint(tmp_path / "here" / other.digest) == other.manifest


async def test_what_only_an_origin_has_is_served_and_kept(
    start: Start, client: StoreClient, mirror: Mirror, tmp_path: Path, made: Made
) -> None:
    async with start(tmp_path / "here", "b", origins=tmp_path / "elsewhere") as b:
        stat = await client.stat(b.address, made.digest)
        assert (stat.manifest, stat.tier) == (made.manifest, Tier.ORIGIN)
        await read(client, b, made, [3, 1])
        kept = sum(extents(made.manifest)[unit] for unit in (1, 3))  # a moment after they are served
        await facts_of(mirror, "b", made.digest, lambda held: held.disk_bytes == kept)
    shutil.rmtree(tmp_path / "elsewhere")
    async with start(tmp_path / "here", "b") as b:
        await read(client, b, made, [1, 3])
        with pytest.raises(DataLoss, match="import it again"):
            await read(client, b, made, [0])


@pytest.mark.parametrize("work", WORKS)
async def test_killed_at_any_step_a_directory_claims_no_more_than_it_has(tmp_path: Path, work: str) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.services.store.killed", work, str(tmp_path)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await child.communicate()
    assert child.returncode == 0
    assert int(said) > 10  # it was killed as often
