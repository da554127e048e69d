"""The store's client against a store that answers wrongly, slowly, or not at all; services/store has the honest one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from whimbrel.inference.v1 import inference_pb2
from whimbrel.store.v1 import store_pb2 as pb
from whimbrel.store.v1 import store_pb2_grpc

from mesh import deadline
from mesh.checkpoint import layout
from mesh.clients.channel import Channels
from mesh.clients.store import RingReading, SlotFilled, StoreClient
from mesh.clients.wire import TIERS
from mesh.errors import Broken, DataLoss, Expired, MeshError, NoRoom, Unreachable
from mesh.facts import CheckpointSummary, Tier
from mesh.interceptor import Surround
from mesh.requests import ImportProgress, LoadProgress
from mesh.segment import SharedMemory
from tests.mesh.checkpoint.samples import manifest

DIGEST = "0" * 64
OTHER = "1" * 64


class OddStore(store_pb2_grpc.StoreServiceServicer):
    """Answers as the test says; `left` is set when a client leaves a stream that would not end."""

    def __init__(self) -> None:
        self.manifest = b"{}"
        self.left = asyncio.Event()
        self.deadline_s: float | None = None
        self.asked = pb.ReadThroughRingRequest()
        self.freed: int | None = None

    async def Import(self, request: pb.ImportRequest, context: Any) -> AsyncIterator[pb.ImportResponse]:  # noqa: N802
        """One of each."""
        yield pb.ImportResponse(progress=inference_pb2.ImportProgress(phase="writing", bytes_done=1, bytes_total=2))
        yield pb.ImportResponse(checkpoint=inference_pb2.Checkpoint(digest=DIGEST, bytes=4096, dtype="bfloat16"))

    async def Open(self, request: pb.OpenRequest, context: Any) -> AsyncIterator[pb.OpenResponse]:  # noqa: N802
        """Progress, then what the digest says."""
        self.deadline_s = context.time_remaining()
        progress = inference_pb2.LoadProgress(tier=inference_pb2.TIER_DISK, bytes_done=1, bytes_total=2)
        yield pb.OpenResponse(progress=progress)
        if request.digest == "full":
            raise NoRoom("full", reason="DRAM_IN_USE", retry_after_s=1.5)
        if request.digest in {"bad manifest", OTHER}:
            yield pb.OpenResponse(opened=pb.Opened(manifest=self.manifest))
        if request.digest == "slow":
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()

    async def ReadThroughRing(  # noqa: N802
        self, requests: AsyncIterator[pb.ReadThroughRingRequest], context: Any
    ) -> AsyncIterator[pb.ReadThroughRingResponse]:
        """A ring of one slot; what has been asked for and given back is kept."""
        self.asked = await anext(requests)
        if self.asked.read.digest == "no ring":
            yield pb.ReadThroughRingResponse(complete=pb.Complete())
        yield pb.ReadThroughRingResponse(ring=pb.SharedMemory(socket_path="/s", token=b"t", segment_bytes=4096))
        yield pb.ReadThroughRingResponse(filled=pb.SlotFilled(slot=0, unit=1, offset=2, bytes=3))
        if self.asked.read.digest == "ends":
            return
        self.freed = (await anext(requests)).free.slot
        yield pb.ReadThroughRingResponse(complete=pb.Complete())

    async def Prefetch(self, request: pb.PrefetchRequest, context: Any) -> AsyncIterator[pb.PrefetchResponse]:  # noqa: N802
        """Progress of the tier asked for."""
        progress = inference_pb2.LoadProgress(tier=request.tier, bytes_done=1, bytes_total=2)
        yield pb.PrefetchResponse(progress=progress)

    async def Evict(self, request: pb.EvictRequest, context: Any) -> pb.EvictResponse:  # noqa: N802
        """As many bytes as the tier's number."""
        return pb.EvictResponse(freed_bytes=request.tier)

    async def ReadUnits(  # noqa: N802
        self, request: pb.ReadUnitsRequest, context: Any
    ) -> AsyncIterator[pb.ReadUnitsResponse]:
        """Never ends."""
        yield pb.ReadUnitsResponse(unit=1, offset=2, data=b"3")
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()

    async def Stat(self, request: pb.StatRequest, context: Any) -> pb.StatResponse:  # noqa: N802
        """A manifest."""
        return pb.StatResponse(manifest=self.manifest)

    async def ReadFile(self, request: pb.ReadFileRequest, context: Any) -> AsyncIterator[pb.ReadFileResponse]:  # noqa: N802
        """In pieces."""
        for data in (b"a", b"", b"bc"):
            yield pb.ReadFileResponse(data=data)

    async def List(self, request: pb.ListRequest, context: Any) -> pb.ListResponse:  # noqa: N802
        """A tier from the future."""
        checkpoint = inference_pb2.Checkpoint(digest=DIGEST)
        stored = pb.StoredCheckpoint(checkpoint=checkpoint, tier=99, disk_bytes=5, dram_bytes=3)  # type: ignore[arg-type]
        return pb.ListResponse(checkpoints=[stored])

    async def Delete(self, request: pb.DeleteRequest, context: Any) -> pb.DeleteResponse:  # noqa: N802
        """Nothing to it."""
        return pb.DeleteResponse()


@pytest.fixture
def odd() -> OddStore:
    """The store."""
    return OddStore()


@pytest.fixture
async def address(odd: OddStore) -> AsyncIterator[str]:
    """Where it listens."""
    server = aio.server(interceptors=[Surround()])
    store_pb2_grpc.add_StoreServiceServicer_to_server(odd, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


@pytest.fixture
async def client() -> AsyncIterator[StoreClient]:
    """What is tested."""
    channels = Channels()
    yield StoreClient(channels)
    await channels.close()


async def test_an_import_gives_records(client: StoreClient, address: str) -> None:
    events = [event async for event in client.import_checkpoint(address, "/models/a")]
    assert events == [
        ImportProgress("writing", 1, 2),
        CheckpointSummary(DIGEST, 4096, "", "bfloat16", 0, 0, 0, 0),
    ]


async def test_progress_comes_before_the_error_and_the_error_is_ours(client: StoreClient, address: str) -> None:
    async with client.open(address, "full") as opening:
        progress = opening.progress()
        assert await anext(progress) == LoadProgress(Tier.DISK, 1, 2)
        with pytest.raises(NoRoom) as full:
            await anext(progress)
    assert (full.value.reason, full.value.retry_after_s) == ("DRAM_IN_USE", 1.5)


async def test_a_store_that_ends_before_it_has_opened_is_broken(client: StoreClient, address: str) -> None:
    with pytest.raises(Broken):
        async with client.open(address, "ends") as opening:
            await opening.opened()


@pytest.mark.parametrize("manifest", [b"", b"{}", b"\xff", b'{"format":"whimbrel-checkpoint","version":2}'])
async def test_a_manifest_that_breaks_the_format_is_data_loss(
    client: StoreClient, odd: OddStore, address: str, manifest: bytes
) -> None:
    odd.manifest = manifest
    with pytest.raises(DataLoss) as opened:
        async with client.open(address, "bad manifest") as opening:
            await opening.opened()
    assert opened.value.reason == "BAD_MANIFEST"
    with pytest.raises(DataLoss):
        await client.stat(address, DIGEST)


async def test_a_store_that_opens_another_checkpoint_than_asked_for_is_data_loss(
    client: StoreClient, odd: OddStore, address: str
) -> None:
    odd.manifest = layout.dump(manifest())
    with pytest.raises(DataLoss) as opened:
        async with client.open(address, OTHER) as opening:
            await opening.opened()
    assert opened.value.reason == "BAD_MANIFEST"


async def test_a_manifest_is_parsed_once(client: StoreClient, odd: OddStore, address: str) -> None:
    odd.manifest = layout.dump(manifest())
    first, second = (await client.stat(address, DIGEST)).manifest, (await client.stat(address, DIGEST)).manifest
    assert first is second
    assert first == manifest()


async def test_a_ring_is_asked_for_read_and_given_back(client: StoreClient, odd: OddStore, address: str) -> None:
    async with client.read_through_ring(address, DIGEST, [4, 5]) as reading:
        assert await reading.memory() == SharedMemory(Path("/s"), b"t", 4096)
        filled = []
        async for one in reading.filled():
            filled.append(one)
            reading.free(one.slot)
    assert filled == [SlotFilled(slot=0, unit=1, offset=2, bytes=3)]
    assert (odd.asked.read.digest, list(odd.asked.read.units), odd.freed) == (DIGEST, [4, 5], 0)


@pytest.mark.parametrize(("digest", "error"), [("no ring", DataLoss), ("ends", Broken)])
async def test_a_ring_that_does_not_keep_to_the_order_of_events_is_an_error(
    client: StoreClient, address: str, digest: str, error: type[MeshError]
) -> None:
    async with client.read_through_ring(address, digest, [0]) as reading:
        with pytest.raises(error):
            await drain(reading)


async def drain(reading: RingReading) -> None:
    """Takes all that comes."""
    await reading.memory()
    async for _ in reading.filled():
        pass


@pytest.mark.parametrize("tier", [Tier.DISK, Tier.DRAM])
async def test_a_tier_is_prefetched_into_and_evicted_from(client: StoreClient, address: str, tier: Tier) -> None:
    assert [step async for step in client.prefetch(address, DIGEST, tier)] == [LoadProgress(tier, 1, 2)]
    assert await client.evict(address, DIGEST, tier) == TIERS[tier]


async def test_leaving_ends_the_call_at_the_store(client: StoreClient, odd: OddStore, address: str) -> None:
    async with client.open(address, "slow") as opening:
        assert await anext(opening.progress()) == LoadProgress(Tier.DISK, 1, 2)
        assert not odd.left.is_set()
    await asyncio.wait_for(odd.left.wait(), 60)


async def test_a_read_ends_with_the_deadline_of_the_call_it_is_made_for(
    client: StoreClient, odd: OddStore, address: str
) -> None:
    deadline.set_left(0.3)
    with pytest.raises(Expired):
        async for _ in client.read_units(address, DIGEST, [0]):
            pass
    await asyncio.wait_for(odd.left.wait(), 60)


async def test_holding_outlives_the_call_that_asked_for_it(client: StoreClient, odd: OddStore, address: str) -> None:
    deadline.set_left(0.3)
    async with client.open(address, "slow") as opening:
        await anext(opening.progress())
    assert odd.deadline_s is None


async def test_a_file_is_put_together(client: StoreClient, address: str) -> None:
    assert await client.read_file(address, DIGEST, "x") == b"abc"


async def test_a_tier_that_we_do_not_know_counts_as_the_farthest(client: StoreClient, address: str) -> None:
    (entry,) = await client.list(address)
    assert (entry.summary.digest, entry.tier) == (DIGEST, Tier.ORIGIN)
    assert (entry.disk_bytes, entry.dram_bytes) == (5, 3)


async def test_nobody_there_is_unreachable_and_worth_another_try(client: StoreClient) -> None:
    with pytest.raises(Unreachable) as gone:
        await client.stat("127.0.0.1:1", DIGEST)
    assert gone.value.retry_after_s
    assert "store at 127.0.0.1:1" in gone.value.message
