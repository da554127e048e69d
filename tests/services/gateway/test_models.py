"""ModelService over a real socket: versions of a model, and its bytes in the stores' tiers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from grpc import aio
from whimbrel.gateway.v1.gateway_pb2_grpc import add_ModelServiceServicer_to_server

from mesh.checkpoint.layout import Manifest, total_bytes
from mesh.clients.channel import Channels, connect
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import Model, Prefetching
from mesh.clients.store import StoreClient
from mesh.errors import Conflict, InvalidRequest, NotFound, Unreachable, Unsuitable
from mesh.facts import CheckpointFacts, Kind, Member, NumericsLevel, ReplicaFacts, ReplicaState, Tier, WorkerFacts
from mesh.interceptor import Surround
from mesh.requests import LoadProgress
from mesh.serve import Ground
from mesh.state.connection import State
from mesh.state.leases import Membership
from mesh.state.mirror import Mirror
from services.gateway.checkpoints import Checkpoints
from services.gateway.models import ModelServicer
from services.gateway.tiers import Tiers
from tests.services.gateway.fake_store import FakeStore, fake_store
from tests.services.store.made import make

WAIT_S = 60.0


class Bench:
    """A gateway's catalogue, its client, and stores that the test plays. `old` and `new` are two checkpoints."""

    def __init__(self, state: State, stack: AsyncExitStack, directory: Path) -> None:
        self.state, self._stack = state, stack
        made = [make(directory, seed=seed, part_units=((100,),)).manifest for seed in (1, 2)]
        self.manifests: dict[str, Manifest] = {manifest.digest: manifest for manifest in made}
        self.old, self.new = self.manifests
        self.mirror = Mirror(state)
        self.client: GatewayClient

    async def start(self) -> None:
        """Serves."""
        await self._stack.enter_async_context(self.mirror.running())
        channels = Channels()
        self._stack.push_async_callback(channels.close)
        loop = asyncio.get_running_loop()
        membership = Membership(self.state, Member(Kind.GATEWAY, "g", "n", "g:1"), 60.0)
        ground = Ground(self.state, membership, asyncio.Event(), loop.create_future())
        stores = StoreClient(channels)
        servicer = ModelServicer(ground, self.mirror, Checkpoints(stores, self.mirror), Tiers(stores, self.mirror))
        server = aio.server(interceptors=[Surround()])
        add_ModelServiceServicer_to_server(servicer, server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        self._stack.push_async_callback(server.stop, None)
        self.client = GatewayClient(await self._stack.enter_async_context(connect(address)), address)

    async def store(self, store_id: str, *held: CheckpointFacts) -> FakeStore:
        """A store that the gateway knows of; unless told, it has both checkpoints on disk."""
        held = held or tuple(CheckpointFacts(digest, 100, Tier.DISK, 100) for digest in self.manifests)
        fake = await self._stack.enter_async_context(fake_store(self.state, store_id, self.manifests, held))
        assert await self.mirror.until(lambda facts: f"store/{store_id}" in facts.members, WAIT_S)
        return fake

    async def worker(self, worker_id: str, node: str, replica: ReplicaFacts) -> None:
        """A worker that the gateway knows of."""
        facts = WorkerFacts("host", 1000, 10, 4, (replica,))
        member = Member(Kind.WORKER, worker_id, node, "w:1", worker=facts)
        await self._stack.enter_async_context(Membership(self.state, member, 60.0))
        assert await self.mirror.until(lambda facts: f"worker/{worker_id}" in facts.members, WAIT_S)

    async def deployed(self) -> Model:
        """The model m, which points at the old checkpoint."""
        async with aclosing(self.client.deploy("m", checkpoint=self.old, keep_alive_s=7.0)) as events:
            (model,) = [event async for event in events if isinstance(event, Model)]
        return model


@pytest.fixture
async def bench(state: State, tmp_path: Path) -> AsyncIterator[Bench]:
    """A gateway that serves, and no store yet."""
    async with AsyncExitStack() as stack:
        bench = Bench(state, stack, tmp_path)
        await bench.start()
        yield bench


async def fetched(bench: Bench, tier: Tier = Tier.DRAM, store_id: str = "") -> list[Prefetching]:
    """All that a prefetch of m says."""
    async with aclosing(bench.client.prefetch("m", tier, store_id)) as moves:
        return [move async for move in moves]


async def test_an_update_remembers_the_checkpoint_before_and_a_rollback_swaps_the_two(bench: Bench) -> None:
    await bench.store("s1")
    first = await bench.deployed()
    assert (first.checkpoint.digest, first.previous_checkpoint) == (bench.old, "")
    updated = await bench.client.update("m", checkpoint=bench.new, etag=first.etag)
    assert (updated.checkpoint.digest, updated.previous_checkpoint) == (bench.new, bench.old)
    assert (updated.source, updated.keep_alive_s) == ("/made", 7.0)
    back = await bench.client.rollback("m", updated.etag)
    assert (back.checkpoint.digest, back.previous_checkpoint) == (bench.old, bench.new)
    again = await bench.client.rollback("m")
    assert (again.checkpoint.digest, again.previous_checkpoint) == (bench.new, bench.old)
    assert again == await bench.client.get("m")


async def test_an_update_of_something_else_or_to_the_same_checkpoint_leaves_what_was_before(bench: Bench) -> None:
    await bench.store("s1")
    await bench.deployed()
    await bench.client.update("m", checkpoint=bench.new)
    await bench.client.update("m", keep_alive_s=9.0)
    same = await bench.client.update("m", checkpoint=bench.new)
    assert (same.previous_checkpoint, same.keep_alive_s) == (bench.old, 9.0)


async def test_a_numerics_level_is_kept_changed_and_taken_back(bench: Bench) -> None:
    await bench.store("s1")
    level = NumericsLevel.BATCH_INVARIANT
    async with aclosing(bench.client.deploy("m", checkpoint=bench.old, numerics=level)) as events:
        (model,) = [event async for event in events if isinstance(event, Model)]
    assert model.numerics is level
    assert (await bench.client.update("m", checkpoint=bench.new)).numerics is level
    assert (await bench.client.update("m", numerics=NumericsLevel.FAST)).numerics is NumericsLevel.FAST
    assert bench.mirror.facts.models["m"].numerics is NumericsLevel.FAST


async def test_bounds_of_replicas_are_kept_changed_and_shown(bench: Bench) -> None:
    await bench.store("s1")
    async with aclosing(bench.client.deploy("m", checkpoint=bench.old, min_replicas=1, max_replicas=3)) as events:
        (model,) = [event async for event in events if isinstance(event, Model)]
    assert (model.min_replicas, model.max_replicas, model.target_concurrency) == (1, 3, 0)
    await bench.client.update("m", target_concurrency=8, max_replicas=0)
    entry = bench.mirror.facts.models["m"]
    assert (entry.min_replicas, entry.max_replicas, entry.target_concurrency) == (1, 0, 8)


async def test_a_model_cannot_be_told_to_have_more_replicas_than_may_come(bench: Bench) -> None:
    await bench.store("s1")
    with pytest.raises(InvalidRequest, match="max_replicas"):
        async with aclosing(bench.client.deploy("m", checkpoint=bench.old, min_replicas=3, max_replicas=2)) as events:
            await anext(events)
    await bench.deployed()
    await bench.client.update("m", max_replicas=2)
    with pytest.raises(InvalidRequest, match="max_replicas"):
        await bench.client.update("m", min_replicas=3)
    assert bench.mirror.facts.models["m"].min_replicas == 0


async def test_a_rollback_needs_a_checkpoint_before_the_right_etag_and_a_model(bench: Bench) -> None:
    await bench.store("s1")
    first = await bench.deployed()
    with pytest.raises(Unsuitable) as refused:
        await bench.client.rollback("m")
    assert refused.value.reason == "NO_PREVIOUS"
    await bench.client.update("m", checkpoint=bench.new)
    with pytest.raises(Conflict):
        await bench.client.rollback("m", first.etag)
    with pytest.raises(NotFound):
        await bench.client.rollback("nobody")


async def test_a_store_that_does_not_answer_or_may_not_learn_is_passed_over_for_another_that_has_the_checkpoint(
    bench: Bench,
) -> None:
    first, second = await bench.store("s1"), await bench.store("s2")
    first.fails = Unreachable("it is gone")
    assert (await bench.deployed()).checkpoint.digest == bench.old
    first.fails = Unsuitable("its origin wants a login", reason="ORIGIN_REFUSED")
    assert (await bench.client.update("m", checkpoint=bench.new)).checkpoint.digest == bench.new
    second.fails = Unreachable("it is gone, too")
    with pytest.raises(Unreachable):
        await bench.client.update("m", checkpoint=bench.old)


async def test_a_rollback_to_what_no_store_has_any_more_changes_nothing(bench: Bench) -> None:
    await bench.store("s1", CheckpointFacts(bench.old, 100, Tier.DISK))
    async with fake_store(bench.state, "s2", bench.manifests, (CheckpointFacts(bench.new, 100, Tier.DISK),)):
        assert await bench.mirror.until(lambda facts: "store/s2" in facts.members, WAIT_S)
        await bench.deployed()
        await bench.client.update("m", checkpoint=bench.new)
        await bench.client.rollback("m")
    assert await bench.mirror.until(lambda facts: "store/s2" not in facts.members, WAIT_S)
    with pytest.raises(NotFound) as missing:
        await bench.client.rollback("m")
    assert missing.value.reason == "UNKNOWN_CHECKPOINT"
    assert (await bench.client.get("m")).checkpoint.digest == bench.old


async def test_an_adapter_is_imported_for_its_base_and_becomes_a_model_that_knows_what_that_takes(bench: Bench) -> None:
    fake = await bench.store("s1")
    fake.bases = {bench.new: bench.old}
    await deployed_as(bench, "adapter", bench.new)
    entry = bench.mirror.facts.models["adapter"].checkpoint
    assert (entry.digest, entry.base) == (bench.new, bench.old)
    assert entry.base_bytes == total_bytes(bench.manifests[bench.old])
    assert (await bench.client.get("adapter")).checkpoint.base == bench.old
    fake.bases = {bench.old: bench.new}
    async with aclosing(bench.client.import_checkpoint("/adapters/a", bench.old)) as events:
        imported = [event async for event in events]
    assert [(request.source, request.base) for request in fake.imports] == [("/adapters/a", bench.old)]
    assert imported[-1].base == bench.new  # type: ignore[union-attr]
    async with aclosing(bench.client.deploy("from-source", source="/adapters/a", base=bench.new)) as events:
        models = [event async for event in events if isinstance(event, Model)]
    assert [model.checkpoint.base for model in models] == [bench.new]
    assert fake.imports[-1].base == bench.new
    with pytest.raises(InvalidRequest, match="goes with a source"):
        await anext(bench.client.deploy("wrong", checkpoint=bench.old, base=bench.new))


async def test_an_adapter_that_no_worker_would_apply_or_without_its_base_is_refused_before_it_is_a_model(
    bench: Bench,
) -> None:
    fake = await bench.store("s1")
    await bench.deployed()
    fake.bases = {bench.new: bench.old}
    fake.adapter_config = {"peft_type": "LORA", "r": 4, "layer_replication": [[0, 2]]}
    for refused in (bench.client.update("m", checkpoint=bench.new), deployed_as(bench, "adapter", bench.new)):
        with pytest.raises(Unsuitable, match="repeats layers of its base") as caught:
            await refused
        assert caught.value.reason == "UNSUPPORTED_ADAPTER"
    fake.bases = {bench.new: "ab" * 32}
    with pytest.raises(NotFound, match="Import its source first"):
        await deployed_as(bench, "adapter", bench.new)
    fake.bases = {bench.new: bench.old, bench.old: bench.new}
    with pytest.raises(Unsuitable):
        await deployed_as(bench, "adapter", bench.new)


async def deployed_as(bench: Bench, name: str, digest: str) -> None:
    """Deploys a checkpoint."""
    async with aclosing(bench.client.deploy(name, checkpoint=digest)) as events:
        async for _ in events:
            pass


async def test_a_prefetch_goes_to_the_store_that_has_most_of_it_and_tells_how_far_it_is(bench: Bench) -> None:
    whole = await bench.store("s1")
    half = await bench.store("s2", CheckpointFacts(bench.old, 100, Tier.DISK, 100, 50))
    none = await bench.store("s3", CheckpointFacts(bench.new, 100, Tier.DRAM, 100, 100))
    await bench.deployed()
    assert await fetched(bench) == [
        Prefetching("s2", LoadProgress(Tier.DISK, 1, 2)),
        Prefetching("s2", LoadProgress(Tier.DISK, 2, 2)),
    ]
    assert [move.store_id for move in await fetched(bench, Tier.DISK, "s3")] == ["s3", "s3"]
    assert [(request.digest, request.tier) for request in half.prefetches] == [(bench.old, 3)]
    assert [(request.digest, request.tier) for request in none.prefetches] == [(bench.old, 2)]
    assert whole.prefetches == []


async def test_leaving_a_prefetch_leaves_it_at_the_store(bench: Bench) -> None:
    fake = await bench.store("s1")
    await bench.deployed()
    fake.stalls = True
    async with aclosing(bench.client.prefetch("m")) as moves:
        await anext(moves)
    async with asyncio.timeout(WAIT_S):
        await fake.gone.wait()


async def test_a_store_that_is_not_there_is_named_with_those_that_are(bench: Bench) -> None:
    await bench.store("s1")
    await bench.deployed()
    with pytest.raises(NotFound, match="'s9'; there are s1"):
        await fetched(bench, store_id="s9")
    with pytest.raises(NotFound, match="'s9'; there are s1"):
        await bench.client.evict("m", store_id="s9")


async def test_a_tier_that_is_no_stores_is_refused(bench: Bench) -> None:
    await bench.store("s1")
    await bench.deployed()
    for tier in (Tier.ORIGIN, Tier.DEVICE):
        with pytest.raises(InvalidRequest) as refused:
            await fetched(bench, tier)
        assert [violation.field for violation in refused.value.violations] == ["tier"]
        with pytest.raises(InvalidRequest):
            await bench.client.evict("m", tier)


async def test_an_eviction_goes_to_every_store_that_has_the_checkpoint_and_sums_what_was_freed(bench: Bench) -> None:
    first, second = await bench.store("s1"), await bench.store("s2")
    other = await bench.store("s3", CheckpointFacts(bench.new, 100, Tier.DISK))
    await bench.deployed()
    assert await bench.client.evict("m") == 14
    assert await bench.client.evict("m", Tier.DISK, "s2") == 7
    assert [request.tier for request in first.evictions] == [3]
    assert [request.tier for request in second.evictions] == [3, 2]
    assert {request.digest for request in second.evictions} == {bench.old}
    assert other.evictions == []


async def test_what_is_in_use_stays_there_goes_elsewhere_and_its_users_are_named(bench: Bench) -> None:
    using, free = await bench.store("s1"), await bench.store("s2")
    await bench.worker("w1", "node of s1", ReplicaFacts("m", bench.old, ReplicaState.READY, 100))
    await bench.worker("w2", "node of s2", ReplicaFacts("m", bench.old, ReplicaState.READY, 100))
    await bench.worker("w3", "node of s1", ReplicaFacts("m", bench.new, ReplicaState.READY, 100))
    await bench.deployed()
    using.fails = Unsuitable("in use", reason="CHECKPOINT_IN_USE")
    with pytest.raises(Unsuitable, match=r"s1 has the checkpoint in use by w1 \(m\)") as refused:
        await bench.client.evict("m")
    assert refused.value.metadata["users"] == "w1 (m)"
    assert len(free.evictions) == 1


async def test_a_stores_other_troubles_come_through(bench: Bench) -> None:
    fake = await bench.store("s1")
    await bench.deployed()
    fake.fails = Unsuitable("the only copy", reason="ONLY_COPY")
    with pytest.raises(Unsuitable, match="the only copy"):
        await bench.client.evict("m", Tier.DISK)
    with pytest.raises(Unsuitable, match="the only copy"):
        await fetched(bench)


async def test_what_is_not_deployed_is_moved_by_its_digest(bench: Bench) -> None:
    some = await bench.store("s1", CheckpointFacts(bench.old, 100, Tier.DISK, 100))
    more = await bench.store("s2", CheckpointFacts(bench.old, 100, Tier.DISK, 100, 50))
    async with aclosing(bench.client.prefetch(checkpoint=bench.old)) as moves:
        assert [move.store_id async for move in moves] == ["s2", "s2"]
    assert await bench.client.evict(tier=Tier.DISK, checkpoint=bench.old) == 14
    assert [request.digest for request in (*more.prefetches, *some.evictions, *more.evictions)] == [bench.old] * 3


async def test_a_prefetch_of_what_only_an_origin_has_goes_to_a_store_that_learns_of_it(bench: Bench) -> None:
    without = await bench.store("s1", CheckpointFacts(bench.old, 100, Tier.DISK, 100))
    held = (CheckpointFacts(bench.old, 100, Tier.DISK, 100, 100),)
    async with fake_store(bench.state, "s2", bench.manifests, held, origins=1) as learning:
        learning.bases = {bench.new: bench.old}
        assert await bench.mirror.until(lambda facts: "store/s2" in facts.members, WAIT_S)
        async with aclosing(bench.client.prefetch(checkpoint=bench.new)) as moves:
            assert [move.store_id async for move in moves] == ["s2", "s2"]
        assert [request.digest for request in learning.prefetches] == [bench.new]
        with pytest.raises(NotFound, match="Import its source first"):
            await anext(bench.client.prefetch(checkpoint="ab" * 32))
    assert without.prefetches == []


async def test_an_eviction_of_what_no_store_has_says_where_to_look(bench: Bench) -> None:
    await bench.store("s1")
    with pytest.raises(NotFound, match="whimbrel status") as refused:
        await bench.client.evict(checkpoint="ab" * 32)
    assert refused.value.reason == "UNKNOWN_CHECKPOINT"


@pytest.mark.parametrize(("name", "checkpoint"), [("", ""), ("m", "ab" * 32), ("", "abc"), ("", "AB" * 32)])
async def test_either_a_model_or_a_digest_says_what_is_moved(bench: Bench, name: str, checkpoint: str) -> None:
    fake = await bench.store("s1")
    await bench.deployed()
    for moving in (
        anext(bench.client.prefetch(name, checkpoint=checkpoint)),
        bench.client.evict(name, checkpoint=checkpoint),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await moving
        assert [violation.field for violation in refused.value.violations] == ["checkpoint"]
    assert not fake.prefetches
    assert not fake.evictions


async def test_without_any_store_a_prefetch_says_so(bench: Bench) -> None:
    async with fake_store(bench.state, "s1", bench.manifests, (CheckpointFacts(bench.old, 100, Tier.DISK),)):
        assert await bench.mirror.until(lambda facts: "store/s1" in facts.members, WAIT_S)
        await bench.deployed()
    assert await bench.mirror.until(lambda facts: "store/s1" not in facts.members, WAIT_S)
    with pytest.raises(Unreachable) as refused:
        await fetched(bench)
    assert refused.value.reason == "NO_STORE"
