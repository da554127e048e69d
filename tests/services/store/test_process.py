"""The store as a process: its settings, its limits, its end."""

import asyncio
import resource
from pathlib import Path

import pytest
from whimbrel.store.v1 import store_pb2 as pb
from whimbrel.store.v1.store_pb2_grpc import StoreServiceStub

from mesh.clients.channel import connect, stream
from mesh.clients.store import StoreClient
from mesh.errors import NoRoom, Unreachable
from mesh.facts import Kind
from mesh.segment import SharedMemory, map_parts
from tests.cluster import DidNotStart, process
from tests.services.store.made import make


async def test_a_stopping_store_ends_its_open_calls_and_what_is_mapped_stays(redis_url: str, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with (
        process(Kind.STORE, redis_url=redis_url, store_dir=tmp_path, grace_s=600) as store,
        connect(store.address) as channel,
    ):
        responses = stream(StoreServiceStub(channel).Open(pb.OpenRequest(digest=made.digest)), "the store")
        shared = (await anext(responses)).opened.shared_memory
        memory = SharedMemory(Path(shared.socket_path), shared.token, shared.segment_bytes)
        mapped = await map_parts(memory, [made.size_bytes], writable=False)
        while not (await anext(responses)).HasField("complete"):
            pass
        store.process.terminate()
        with pytest.raises(Unreachable) as stopped:
            await asyncio.wait_for(anext(responses), 60)
        assert stopped.value.reason == "STOPPING"
        assert await asyncio.wait_for(store.process.wait(), 60) == 0  # long before grace_s
        assert bytes(mapped[0].view) == made.parts[0]


async def test_a_message_over_the_limit_is_refused_and_the_store_goes_on(
    redis_url: str, client: StoreClient, tmp_path: Path
) -> None:
    made = make(tmp_path, seed=1)
    settings = {"redis_url": redis_url, "store_dir": tmp_path, "max_message_bytes": 1 << 20}
    async with process(Kind.STORE, **settings) as store:
        with pytest.raises(NoRoom):
            async for _ in client.read_units(store.address, made.digest, [0] * (2 << 20)):
                pass
        assert (await client.stat(store.address, made.digest)).manifest == made.manifest


async def test_wrong_settings_stop_the_start_all_named_at_once(redis_url: str, tmp_path: Path) -> None:
    wrong = {
        "dram_bytes": -1,
        "segment_bytes": 3 << 20,
        "ring_slots": 1,
        "ring_slot_bytes": 4096,
        "chunk_bytes": 5000,
        "verify": "never",
        "source_roots": "/a:b",
    }
    with pytest.raises(DidNotStart) as refused:
        async with process(Kind.STORE, redis_url=redis_url, store_dir="relative", **wrong):
            pass
    for name in ("store_dir", *wrong):
        assert f"WHIMBREL_{name.upper()}" in str(refused.value)


async def test_a_pool_that_needs_more_descriptors_than_there_are_is_refused_with_what_to_do(
    redis_url: str, tmp_path: Path
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    settings = {"store_dir": tmp_path, "dram_bytes": hard * (2 << 20), "segment_bytes": 2 << 20}
    with pytest.raises(DidNotStart, match="WHIMBREL_SEGMENT_BYTES"):
        async with process(Kind.STORE, redis_url=redis_url, **settings):
            pass


async def test_the_store_takes_all_the_descriptors_that_it_may_have(redis_url: str, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        async with process(Kind.STORE, redis_url=redis_url, store_dir=tmp_path) as store:
            assert resource.prlimit(store.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_store_told_to_touches_its_memory_and_stops_when_told_to(redis_url: str, tmp_path: Path) -> None:
    settings = {"redis_url": redis_url, "store_dir": tmp_path, "dram_bytes": 256 << 20, "prefault": True}
    async with process(Kind.STORE, **settings) as store:
        async with asyncio.timeout(60):
            while resident_bytes(store.process.pid) < 256 << 20:  # noqa: ASYNC110  the kernel tells nobody
                await asyncio.sleep(0.05)
        store.process.terminate()
        assert await asyncio.wait_for(store.process.wait(), 60) == 0


def resident_bytes(pid: int) -> int:
    """Shared memory that a process has touched."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["RssShmem"].split()[0]) << 10


async def test_a_second_store_on_the_same_directory_does_not_start(redis_url: str, tmp_path: Path) -> None:
    async with process(Kind.STORE, redis_url=redis_url, store_dir=tmp_path):
        with pytest.raises(DidNotStart, match="another store owns"):
            async with process(Kind.STORE, redis_url=redis_url, store_dir=tmp_path):
                pass
