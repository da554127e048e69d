"""What every device owes a load, whatever way the bytes come, and whatever the store does meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch
from whimbrel.store.v1 import store_pb2 as pb

from mesh.checkpoint.views import tensor_views
from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.errors import DataLoss, MeshError, NoRoom, Unreachable
from mesh.facts import Tier
from mesh.requests import LoadProgress
from services.worker.loading.copying import CopyDevice
from services.worker.loading.device import Weights
from services.worker.loading.host import HostCopier
from services.worker.loading.passing import Passing
from services.worker.loading.ways import Way
from services.worker.settings import Transport
from tests.services.worker.loading.checkpoints import checkpoint
from tests.services.worker.loading.fake_store import MEMORY, Behaviour, FakeStore, serving
from tests.services.worker.loading.twins import TWINS, Twin

PAGE = 4096
CHECKPOINT = checkpoint((3 * (1 << 20) + 5, 100, 2 << 20), (PAGE, 9 << 20))
UNITS = len(CHECKPOINT.manifest.units)
SIZES = [unit.bytes for unit in CHECKPOINT.manifest.units]
MAPPED: dict[str, Any] = {}
RING: dict[str, Any] = {"larger_than_dram": True}
STREAM: dict[str, Any] = {"wrong_socket": True}
WAYS = [pytest.param(MAPPED, id="mapped"), pytest.param(RING, id="ring"), pytest.param(STREAM, id="stream")]


@dataclass
class Scene:
    """A store, and devices to load from it."""

    store: FakeStore
    address: str
    stores: StoreClient

    async def loaded(self, twin: Twin, tell: Callable[[LoadProgress], None] = lambda progress: None) -> list[bytes]:
        """The parts, once complete, as bytes."""
        stat = await self.stores.stat(self.address, CHECKPOINT.digest)
        async with twin.device.load(self.address, stat, tell) as weights:
            await weights.complete()
            return read(weights)


def read(weights: Weights) -> list[bytes]:
    """The parts' bytes."""
    return [part.cpu().numpy().tobytes() for part in weights.parts]


def unit_bytes(parts: list[bytes]) -> list[bytes]:
    """What lies where the units do: padding is nobody's."""
    return [parts[unit.part][unit.offset : unit.offset + unit.bytes] for unit in CHECKPOINT.manifest.units]


EXPECTED = unit_bytes(list(CHECKPOINT.parts))


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """What is tested, and what it is tested against; afterwards nothing of the store's is left in this process."""
    channels = Channels()
    async with serving(CHECKPOINT) as (store, address):
        yield Scene(store, address, StoreClient(channels))
        await channels.close()
        async with asyncio.timeout(60):
            while store.held:
                await store.none_held.wait()
    assert not maps()


def maps() -> list[str]:
    """Mappings of the store's memory in this process: the store itself makes none."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if MEMORY in line]


def descriptors() -> int:
    """How often this process has the store's memory open."""
    return sum(MEMORY in str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink())


@pytest.fixture(params=TWINS)
def twin(request: pytest.FixtureRequest, scene: Scene) -> Twin:
    """Each device, with every way open to it."""
    made: Twin = request.param(scene.stores, Transport.AUTO)
    return made


@pytest.mark.parametrize("segment_bytes", [PAGE, 3 * PAGE, 1 << 20, 64 << 20])
async def test_every_tensor_is_what_it_was_whatever_the_segments(scene: Scene, twin: Twin, segment_bytes: int) -> None:
    scene.store.does = Behaviour(segment_bytes=segment_bytes)
    stat = await scene.stores.stat(scene.address, CHECKPOINT.digest)
    async with twin.device.load(scene.address, stat, lambda progress: None) as weights:
        assert await weights.complete() is Tier.DISK
        views = tensor_views(CHECKPOINT.manifest, weights.parts)
        parts = [torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in CHECKPOINT.parts]
        expected = tensor_views(CHECKPOINT.manifest, parts)
        assert views.keys() == expected.keys()
        for name, view in views.items():
            assert torch.equal(view.cpu().view(torch.uint8), expected[name].view(torch.uint8)), name
        assert views["experts"].stride() == (2048 * 2, 500, 1)
        if twin.zero_copy:
            assert maps()
        views.clear()
    assert scene.store.streams == scene.store.rings == 0


async def test_units_may_come_in_any_order_and_one_at_a_time(scene: Scene, twin: Twin) -> None:
    batches = [[index] for index in reversed(range(UNITS))]
    scene.store.does = Behaviour(segment_bytes=3 * PAGE, batches=batches)
    told: list[LoadProgress] = []
    assert unit_bytes(await scene.loaded(twin, told.append)) == EXPECTED
    total = sum(len(part) for part in CHECKPOINT.parts)
    assert [progress.bytes_done for progress in told] == [*range(UNITS + 2), total]


async def test_memory_is_there_before_its_bytes_and_complete_waits_for_the_last(scene: Scene, twin: Twin) -> None:
    scene.store.does = does = Behaviour(batches=[[1], [index for index in range(UNITS) if index != 1]], stop_at=1)
    stat = await scene.stores.stat(scene.address, CHECKPOINT.digest)
    async with twin.device.load(scene.address, stat, lambda progress: None) as weights:
        complete = asyncio.ensure_future(weights.complete())
        await does.stops(complete)
        assert [part.numel() for part in weights.parts] == [len(part) for part in CHECKPOINT.parts]
        assert not complete.done()
        assert unit_bytes(read(weights)) != EXPECTED
        does.go_on.set()
        await complete
        assert unit_bytes(read(weights)) == EXPECTED


async def test_who_copies_holds_nothing_of_the_store_afterwards_and_who_maps_does(scene: Scene, twin: Twin) -> None:
    stat = await scene.stores.stat(scene.address, CHECKPOINT.digest)
    async with twin.device.load(scene.address, stat, lambda progress: None) as weights:
        await weights.complete()
        if twin.zero_copy:
            assert scene.store.held == 1
            assert maps()
        else:
            await asyncio.wait_for(scene.store.none_held.wait(), 60)
            assert not maps()
        assert unit_bytes(read(weights)) == EXPECTED
    assert not maps()
    assert not weights.parts


@pytest.mark.parametrize(("slots", "slot_bytes"), [(1, PAGE), (2, 5000), (3, 1 << 20), (8, 16 << 20)])
async def test_what_is_larger_than_dram_comes_through_the_ring(
    scene: Scene, twin: Twin, slots: int, slot_bytes: int
) -> None:
    slot_bytes = -(-slot_bytes // PAGE) * PAGE
    scene.store.does = Behaviour(larger_than_dram=True, slots=slots, slot_bytes=slot_bytes)
    told: list[LoadProgress] = []
    assert unit_bytes(await scene.loaded(twin, told.append)) == EXPECTED
    assert (scene.store.rings, scene.store.streams) == (1, 0)
    assert told[-1] == LoadProgress(Tier.DISK, sum(SIZES), sum(SIZES))
    assert not maps()


@pytest.mark.parametrize("larger_than_dram", [False, True])
async def test_where_memory_cannot_be_shared_it_is_streamed(scene: Scene, twin: Twin, larger_than_dram: bool) -> None:
    scene.store.does = Behaviour(wrong_socket=True, larger_than_dram=larger_than_dram, chunk_bytes=300_001)
    told: list[LoadProgress] = []
    assert unit_bytes(await scene.loaded(twin, told.append)) == EXPECTED
    assert scene.store.streams == 1
    assert told[-1] == LoadProgress(Tier.DISK, sum(SIZES), sum(SIZES))


@pytest.mark.parametrize(
    "lie",
    [
        {"told_segment_bytes": 0},
        {"told_segment_bytes": PAGE + 1},
        {"told_segment_bytes": PAGE},
        {"told_segment_bytes": 2 << 20},
        {"told_segment_bytes": 2**64 - PAGE},
        {"short_segments": True},
        {"seals": 0},
        {"hand_over": lambda descriptors: descriptors[:-1]},
        {"hand_over": lambda descriptors: [*descriptors, descriptors[0]]},
        {"hand_over": lambda descriptors: []},
    ],
)
async def test_memory_that_is_not_what_it_should_be_is_not_mapped(
    scene: Scene, twin: Twin, lie: dict[str, Any]
) -> None:
    scene.store.does = Behaviour(**lie)
    assert unit_bytes(await scene.loaded(twin)) == EXPECTED
    assert scene.store.streams == 1
    await asyncio.wait_for(scene.store.none_held.wait(), 60)
    assert not maps()
    assert not descriptors()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", [0, 2])
async def test_a_store_that_dies_on_the_way_is_unreachable(
    scene: Scene, twin: Twin, way: dict[str, Any], at: int
) -> None:
    batches = [[index] for index in range(UNITS)]
    scene.store.does = Behaviour(batches=batches, fail_at=at, **way)
    with pytest.raises(Unreachable) as gone:
        await scene.loaded(twin)
    assert gone.value.reason in {"STOPPING", "SHARED_MEMORY_UNREACHABLE", "CALL_ENDED"}  # whichever is heard first
    assert not maps()
    assert nothing_left(twin)


async def test_a_store_that_dies_before_it_has_opened_is_unreachable(scene: Scene, twin: Twin) -> None:
    scene.store.does = Behaviour(fail_at=-1)
    with pytest.raises(Unreachable):
        await scene.loaded(twin)


@pytest.mark.parametrize("way", [{"larger_than_dram": True}, {"wrong_socket": True}])
async def test_bytes_that_pass_by_are_read_again_when_a_unit_was_damaged_and_not_for_ever(
    scene: Scene, twin: Twin, way: dict[str, Any]
) -> None:
    scene.store.does = Behaviour(corrupt=2, **way)
    assert unit_bytes(await scene.loaded(twin)) == EXPECTED
    assert scene.store.rings + scene.store.streams == 3
    scene.store.does = Behaviour(corrupt=99, **way)
    with pytest.raises(DataLoss):
        await scene.loaded(twin)
    assert scene.store.rings + scene.store.streams == 6
    assert not maps()
    assert nothing_left(twin)


@pytest.mark.parametrize("unit", [0, UNITS - 1])
async def test_a_byte_that_changed_on_the_network_is_data_loss(scene: Scene, twin: Twin, unit: int) -> None:
    def damage(index: int, offset: int, data: bytes) -> bytes:
        return bytes([data[0] ^ 4]) + data[1:] if index == unit else data

    scene.store.does = Behaviour(wrong_socket=True, damage=damage)
    with pytest.raises(DataLoss) as lost:
        await scene.loaded(twin)
    assert lost.value.reason == "CORRUPT_UNIT"
    assert nothing_left(twin)


@pytest.mark.parametrize(
    "damage", [lambda unit, offset, data: data + b"x", lambda unit, offset, data: data[:-1] or b"xx"]
)
async def test_a_stream_of_the_wrong_length_is_data_loss(
    scene: Scene, twin: Twin, damage: Callable[[int, int, bytes], bytes]
) -> None:
    scene.store.does = Behaviour(wrong_socket=True, damage=damage)
    with pytest.raises(DataLoss) as lost:
        await scene.loaded(twin)
    assert lost.value.reason == "BAD_STREAM"


def changed(**changes: int) -> Callable[[pb.SlotFilled], pb.SlotFilled]:
    """A message of the ring with other fields."""

    def change(filled: pb.SlotFilled) -> pb.SlotFilled:
        for name, value in changes.items():
            setattr(filled, name, value)
        return filled

    return change


@pytest.mark.parametrize(
    "lie",
    [
        {"ringing": changed(slot=2)},
        {"ringing": changed(unit=UNITS)},
        {"ringing": changed(unit=1)},
        {"ringing": changed(offset=1)},
        {"ringing": changed(bytes=0)},
        {"ringing": changed(bytes=(1 << 20) + 1)},
        {"ringing": changed(bytes=2**64 - 1)},
        {"ring_ends_early": True},
    ],
)
async def test_a_ring_that_lies_is_data_loss(scene: Scene, twin: Twin, lie: dict[str, Any]) -> None:
    scene.store.does = Behaviour(larger_than_dram=True, **lie)
    with pytest.raises(DataLoss) as lost:
        await scene.loaded(twin)
    assert lost.value.reason == "BAD_STREAM"
    assert not maps()
    assert nothing_left(twin)


async def test_a_slot_that_comes_again_before_it_was_given_back_is_data_loss(scene: Scene) -> None:
    scene.store.does = Behaviour(ringing=changed(slot=0))
    stat = await scene.stores.stat(scene.address, CHECKPOINT.digest)
    source = Passing(scene.stores, scene.address, stat, Way.RING, Way.RING)
    async with source.pieces(lambda progress: None) as pieces:
        first = await anext(pieces)
        assert bytes(first.data) == EXPECTED[0][: 1 << 20]
        with pytest.raises(DataLoss) as lost:
            await anext(pieces)
    assert lost.value.reason == "BAD_STREAM"


Events = list[pb.OpenResponse]


@pytest.mark.parametrize(
    "lie",
    [
        lambda events: [events[1], events[0], events[2]],  # units before their memory
        lambda events: [events[0], *events],
        lambda events: [events[0], events[1], events[1], events[2]],
        lambda events: [events[0], events[2]],
        lambda events: [events[0], pb.OpenResponse(units=pb.UnitsReady(units=[UNITS])), *events[1:]],
        lambda events: [events[0], pb.OpenResponse(units=pb.UnitsReady(units=[3, 3])), events[2]],
    ],
)
async def test_an_opening_that_lies_is_data_loss(scene: Scene, twin: Twin, lie: Callable[[Events], Events]) -> None:
    scene.store.does = Behaviour(opening=lie)
    with pytest.raises(DataLoss) as lost:
        await scene.loaded(twin)
    assert lost.value.reason == "BAD_STREAM"
    assert not maps()
    assert nothing_left(twin)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", [0, 2])
async def test_cancelling_frees_everything(scene: Scene, twin: Twin, way: dict[str, Any], at: int) -> None:
    scene.store.does = does = Behaviour(batches=[[index] for index in range(UNITS)], stop_at=at, **way)
    loading = asyncio.create_task(scene.loaded(twin))
    await does.stops(loading)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert not maps()
    assert nothing_left(twin)
    does.go_on.set()


async def test_cancelling_before_the_store_has_opened_frees_everything(scene: Scene, twin: Twin) -> None:
    scene.store.does = does = Behaviour(stop_at=-1)
    loading = asyncio.create_task(scene.loaded(twin))
    await does.stops(loading)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert nothing_left(twin)


@pytest.mark.parametrize("way", WAYS)
async def test_an_error_in_the_block_frees_everything(scene: Scene, twin: Twin, way: dict[str, Any]) -> None:
    scene.store.does = Behaviour(stop_at=1, batches=[[index] for index in range(UNITS)], **way)
    stat = await scene.stores.stat(scene.address, CHECKPOINT.digest)
    seen: list[Weights] = []

    async def fail() -> None:
        async with twin.device.load(scene.address, stat, lambda progress: None) as weights:
            seen.append(weights)
            await scene.store.does.stops(asyncio.ensure_future(weights.complete()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not seen[0].parts
    assert not maps()
    assert nothing_left(twin)
    scene.store.does.go_on.set()


async def test_a_transport_that_is_forced_takes_no_other(scene: Scene) -> None:
    for make in TWINS[:4]:
        scene.store.does = Behaviour(wrong_socket=True)
        with pytest.raises(Unreachable) as closed:
            await scene.loaded(make(scene.stores, Transport.SHARED))
        assert closed.value.reason == "SHARED_MEMORY_UNREACHABLE"
        scene.store.does = Behaviour()
        assert unit_bytes(await scene.loaded(make(scene.stores, Transport.STREAM))) == EXPECTED
    assert scene.store.streams == 4


async def test_a_card_that_page_locks_nothing_is_served_from_a_staging_ring_and_the_log_says_so(scene: Scene) -> None:
    with structlog.testing.capture_logs() as logs:
        assert unit_bytes(await scene.loaded(TWINS[3](scene.stores, Transport.AUTO))) == EXPECTED
    assert any("staging ring" in entry["event"] for entry in logs)


class Full(HostCopier):
    """A device without memory."""

    def allocate(self, size: int) -> torch.Tensor:
        raise MemoryError(f"{size} bytes are too many")


async def test_a_device_without_room_says_so(scene: Scene) -> None:
    with pytest.raises(NoRoom) as full:
        await scene.loaded(Twin(CopyDevice(scene.stores, Transport.AUTO, Full())))
    assert full.value.reason == "NO_DEVICE_MEMORY"


class Broken(HostCopier):
    """A device whose third copy fails."""

    def __init__(self) -> None:
        self.copies = 0

    def copy(self, target: torch.Tensor, offset: int, source: memoryview) -> None:
        self.copies += 1
        if self.copies == 3:
            raise OSError("CUDA: an illegal memory access was encountered")
        super().copy(target, offset, source)


@pytest.mark.parametrize("way", WAYS)
async def test_a_copy_that_fails_ends_the_load_though_the_store_waits(scene: Scene, way: dict[str, Any]) -> None:
    scene.store.does = Behaviour(slots=1, batches=[[index] for index in range(UNITS)], **way)
    with pytest.raises(MeshError) as failed:
        await asyncio.wait_for(scene.loaded(Twin(CopyDevice(scene.stores, Transport.AUTO, Broken()))), 60)
    assert "illegal memory access" in failed.value.message
    assert not maps()


def nothing_left(twin: Twin) -> bool:
    """Whether the device has given everything back."""
    return twin.copier is None or not (twin.copier.alive or twin.copier.pinned)
