"""The store as a process: its settings, its limits, its end."""

import asyncio
from pathlib import Path

import pytest
from whimbrel.store.v1 import store_pb2 as pb
from whimbrel.store.v1.store_pb2_grpc import StoreServiceStub

from mesh.clients.channel import connect, stream
from mesh.clients.store import StoreClient
from mesh.errors import NoRoom, Unreachable
from mesh.facts import Kind
from mesh.segment import fetch_parts, map_parts
from tests.cluster import DidNotStart, process
from tests.services.store.made import make


async def test_a_stopping_store_ends_its_open_calls_and_what_is_mapped_stays(redis_url: str, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with (
        process(Kind.STORE, redis_url=redis_url, store_dir=tmp_path, grace_s=60) as store,
        connect(store.address) as channel,
    ):
        responses = stream(StoreServiceStub(channel).Open(pb.OpenRequest(digest=made.digest)), "the store")
        while not (response := await anext(responses)).HasField("opened"):
            pass
        shared = response.opened.shared_memory
        mapped = map_parts(await fetch_parts(shared.socket_path, shared.token, 1), [made.size_bytes])
        store.process.terminate()
        with pytest.raises(Unreachable) as stopped:
            await asyncio.wait_for(anext(responses), 20)
        assert stopped.value.reason == "STOPPING"
        assert await asyncio.wait_for(store.process.wait(), 20) == 0  # long before grace_s
        assert bytes(mapped[0]) == made.parts[0]


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
    wrong = {"dram_bytes": -1, "chunk_bytes": 5000, "verify": "never", "source_roots": "/a:b"}
    with pytest.raises(DidNotStart) as refused:
        async with process(Kind.STORE, redis_url=redis_url, store_dir="relative", **wrong):
            pass
    for name in ("STORE_DIR", "DRAM_BYTES", "CHUNK_BYTES", "VERIFY", "SOURCE_ROOTS"):
        assert f"WHIMBREL_{name}" in str(refused.value)


async def test_a_second_store_on_the_same_directory_does_not_start(redis_url: str, tmp_path: Path) -> None:
    async with process(Kind.STORE, redis_url=redis_url, store_dir=tmp_path):
        with pytest.raises(DidNotStart, match="another store owns"):
            async with process(Kind.STORE, redis_url=redis_url, store_dir=tmp_path):
                pass
