"""Prefetch and Evict: up and down the tiers, as an admin or a policy asks."""

from contextlib import aclosing
from pathlib import Path

import pytest
from whimbrel.inference.v1 import inference_pb2
from whimbrel.store.v1 import store_pb2 as pb
from whimbrel.store.v1.store_pb2_grpc import StoreServiceStub

from mesh.clients.channel import connect, unary
from mesh.errors import InvalidRequest, NoRoom, NotFound, Unsuitable
from mesh.facts import Tier
from mesh.requests import LoadProgress
from mesh.state.connection import State
from tests.services.store.made import MB, make
from tests.services.store.serving import SEEN_S, serving
from tests.services.store.test_opening import facts_of, tier_in, use


async def test_a_prefetched_checkpoint_is_in_memory_and_not_held_there(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((8 * MB,) * 2,))
    async with serving(state, tmp_path) as store:
        progress = [step async for step in store.client.prefetch(store.address, made.digest)]
        assert progress[-1] == LoadProgress(Tier.DISK, made.size_bytes, made.size_bytes)
        assert [step.bytes_done for step in progress] == sorted(step.bytes_done for step in progress)
        await store.mirror.until(lambda _: tier_in(store, made) is Tier.DRAM, SEEN_S)
        assert await use(store, made) is Tier.DRAM
        assert await store.client.evict(store.address, made.digest) == made.size_bytes
        await store.mirror.until(lambda _: tier_in(store, made) is Tier.DISK, SEEN_S)
        assert facts_of(store).dram_used_bytes == 0
        assert await store.client.evict(store.address, made.digest) == 0


async def test_what_is_on_disk_already_is_prefetched_there_at_once(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with serving(state, tmp_path) as store:
        progress = [step async for step in store.client.prefetch(store.address, made.digest, Tier.DISK)]
        assert progress[-1].bytes_done == made.size_bytes
        assert (await store.client.stat(store.address, made.digest)).dram_bytes == 0


async def test_who_leaves_a_prefetch_ends_it(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=((64 * MB,),))
    async with serving(state, tmp_path, reader_threads=1, chunk_bytes=4096) as store:
        async with aclosing(store.client.prefetch(store.address, made.digest)) as progress:
            await anext(progress)
        await store.mirror.until(lambda _: facts_of(store).dram_used_bytes == 0, 20)
        assert tier_in(store, made) is Tier.DISK


async def test_what_is_in_use_stays(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with serving(state, tmp_path) as store, store.client.open(store.address, made.digest) as opening:
        await opening.complete()
        with pytest.raises(Unsuitable) as refused:
            await store.client.evict(store.address, made.digest)
        assert refused.value.reason == "CHECKPOINT_IN_USE"


async def test_the_only_copy_does_not_leave_the_disk(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with serving(state, tmp_path) as store:
        with pytest.raises(Unsuitable):
            await store.client.evict(store.address, made.digest, Tier.DISK)
        assert await use(store, made) is Tier.DISK


async def test_what_cannot_be_is_refused(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with serving(state, tmp_path, dram_bytes=MB) as store:
        with pytest.raises(NoRoom):
            [step async for step in store.client.prefetch(store.address, made.digest)]
        with pytest.raises(NotFound):
            [step async for step in store.client.prefetch(store.address, "0" * 64)]
        with pytest.raises(NotFound):
            await store.client.evict(store.address, "0" * 64)
        async with connect(store.address) as channel:
            for tier in (inference_pb2.TIER_DEVICE, inference_pb2.TIER_ORIGIN):
                request = pb.EvictRequest(digest=made.digest, tier=tier)
                with pytest.raises(InvalidRequest) as refused:
                    await unary(StoreServiceStub(channel).Evict(request, timeout=10), "the store")
                assert refused.value.violations[0].field == "tier"
