"""A store on a real socket, with real memfds, that does what the test says: also die, lie, and wait."""

import asyncio
import contextlib
import fcntl
import os
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpc import aio
from whimbrel.inference.v1 import inference_pb2
from whimbrel.store.v1 import store_pb2 as pb
from whimbrel.store.v1 import store_pb2_grpc

from mesh.checkpoint import layout
from mesh.errors import DataLoss, MeshError, NoRoom, Unreachable
from mesh.interceptor import Surround
from tests.services.worker.loading.checkpoints import Checkpoint

MEMORY = "whimbrel-fake"
FRESH = 0xEE  # what memory holds before its unit has come
Context = aio.ServicerContext[Any, Any]


@dataclass
class Behaviour:
    """What the store does. As it stands: everything right."""

    segment_bytes: int = 1 << 20
    told_segment_bytes: int | None = None  # on the wire; None: the truth
    batches: Sequence[Sequence[int]] | None = None  # units as Open tells of them; None: all at once
    larger_than_dram: bool = False
    wrong_socket: bool = False
    short_segments: bool = False
    seals: int = fcntl.F_SEAL_SHRINK
    hand_over: Callable[[list[int]], list[int]] = lambda descriptors: descriptors
    slots: int = 2
    slot_bytes: int = 1 << 20
    chunk_bytes: int = 1 << 20
    damage: Callable[[int, int, bytes], bytes] = lambda unit, offset, data: data  # of what is streamed
    opening: Callable[[list[pb.OpenResponse]], list[pb.OpenResponse]] = lambda events: events
    ringing: Callable[[pb.SlotFilled], pb.SlotFilled] = lambda filled: filled
    ring_ends_early: bool = False
    corrupt: int = 0  # how many more times it finds the last unit damaged when bytes pass by
    fail_at: int | None = None  # messages (of Open: batches; ring, stream: pieces) before it dies
    stop_at: int | None = None  # messages before it waits for `go_on`
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def stops(self, loading: asyncio.Future[Any]) -> None:
        """Returns when it waits for `go_on`; raises what the load failed with if it never got there."""
        stopped = asyncio.ensure_future(self.stopped.wait())
        await asyncio.wait([stopped, loading], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        assert self.stopped.is_set(), await loading


class FakeStore(store_pb2_grpc.StoreServiceServicer):
    """Holds one checkpoint. `held` counts the streams that hold memory now."""

    def __init__(self, checkpoint: Checkpoint, socket_path: Path) -> None:
        self.checkpoint, self.socket_path = checkpoint, socket_path
        self.does = Behaviour()
        self.held = self.streams = self.rings = 0
        self.none_held, self.files_flow = asyncio.Event(), asyncio.Event()
        self.files_flow.set()  # cleared: files wait
        self.files_read, self.file_read = 0, asyncio.Event()
        self._offers: dict[bytes, list[int]] = {}

    async def Stat(self, request: pb.StatRequest, context: Context) -> pb.StatResponse:  # noqa: N802
        """The manifest."""
        return pb.StatResponse(manifest=self._manifest, tier=inference_pb2.TIER_DISK)

    async def Open(self, request: pb.OpenRequest, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """Memory first, then units, each filled just before it is told of."""
        if self.does.larger_than_dram:
            raise NoRoom("too large", reason="LARGER_THAN_DRAM")
        units = self.checkpoint.manifest.units
        batches = self.does.batches or [range(len(units))]
        with _Memory(self) as memory:
            segments = [memory.segment(size) for size in self._segment_sizes()]
            if self.does.fail_at is not None and self.does.fail_at < 0:
                raise _gone()
            opened = pb.Opened(
                manifest=self._manifest, tier=inference_pb2.TIER_DISK, shared_memory=memory.offer(segments)
            )
            events = [pb.OpenResponse(opened=opened)]
            events += [pb.OpenResponse(units=pb.UnitsReady(units=batch)) for batch in batches]
            events.append(pb.OpenResponse(complete=pb.Complete()))
            for number, event in enumerate(self.does.opening(events)):
                await self._pace(number - 1)
                if event.WhichOneof("event") == "units":
                    self._fill(event.units.units, segments)
                progress = inference_pb2.LoadProgress(tier=inference_pb2.TIER_DISK, bytes_done=number, bytes_total=99)
                await context.write(pb.OpenResponse(progress=progress))
                await context.write(event)
            await asyncio.Event().wait()

    async def ReadThroughRing(self, requests: AsyncIterator[pb.ReadThroughRingRequest], context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """Slots in turn, each only when it is free."""
        self.rings += 1
        with _Memory(self) as memory:
            read = (await anext(requests)).read
            slots = [memory.segment(self.does.slot_bytes) for _ in range(self.does.slots)]
            await context.write(pb.ReadThroughRingResponse(ring=memory.offer(slots, self.does.slot_bytes)))
            free, at = list(range(self.does.slots)), 0
            for unit in read.units[:1] if self.does.ring_ends_early else read.units:
                data = self.checkpoint.unit(unit)
                for offset in range(0, len(data), self.does.slot_bytes):
                    await self._pace(at)
                    at += 1
                    if not free:
                        slot = (await anext(requests)).free.slot
                        os.pwrite(slots[slot], bytes([FRESH]) * self.does.slot_bytes, 0)  # it must have been taken
                        free.append(slot)
                    piece = data[offset : offset + self.does.slot_bytes]
                    if self._finds_damage(unit):
                        while len(free) < self.does.slots:  # a write that meets the end of a call hides why it ended
                            free.append((await anext(requests)).free.slot)
                        raise _damaged()
                    slot = free.pop(0)
                    os.pwrite(slots[slot], piece, 0)
                    filled = self.does.ringing(pb.SlotFilled(slot=slot, unit=unit, offset=offset, bytes=len(piece)))
                    await context.write(pb.ReadThroughRingResponse(filled=filled))
            await context.write(pb.ReadThroughRingResponse(complete=pb.Complete()))
            await asyncio.Event().wait()  # the ring is the client's until it leaves

    async def ReadUnits(self, request: pb.ReadUnitsRequest, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """Chunks in order."""
        self.streams += 1
        at = 0
        for unit in request.units:
            data = self.checkpoint.unit(unit)
            for offset in range(0, len(data), self.does.chunk_bytes):
                await self._pace(at)
                at += 1
                if self._finds_damage(unit):
                    raise _damaged()
                chunk = self.does.damage(unit, offset, data[offset : offset + self.does.chunk_bytes])
                await context.write(pb.ReadUnitsResponse(unit=unit, offset=offset, data=chunk))

    async def ReadFile(self, request: pb.ReadFileRequest, context: Context) -> AsyncIterator[pb.ReadFileResponse]:  # noqa: N802
        """One of the checkpoint's files."""
        await self.files_flow.wait()
        self.files_read += 1
        self.file_read.set()
        yield pb.ReadFileResponse(data=self.checkpoint.files[request.path])

    async def serve_memory(self, listener: socket.socket) -> None:
        """Answers a token with its descriptors, as services/store/handover.py does."""
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listener)
            with client, contextlib.suppress(OSError):  # it has left
                descriptors = self._offers.get(await loop.sock_recv(client, 64))
                for start in range(0, len(descriptors or ()), 128):
                    socket.send_fds(client, [b"\0"], (descriptors or [])[start : start + 128])

    @property
    def _manifest(self) -> bytes:
        return layout.dump(self.checkpoint.manifest)

    def _segment_sizes(self) -> list[int]:
        step = self.does.segment_bytes
        sizes = [len(part) for part in self.checkpoint.parts]
        return [min(step, size - at) for size in sizes for at in range(0, size, step)]

    def _fill(self, units: Sequence[int], segments: list[int]) -> None:
        step = self.does.segment_bytes
        firsts = [0]
        for part in self.checkpoint.parts:
            firsts.append(firsts[-1] + -(-len(part) // step))
        for index in units:
            if index < len(self.checkpoint.manifest.units):
                unit, data, at = self.checkpoint.manifest.units[index], self.checkpoint.unit(index), 0
                while at < len(data):
                    number, within = divmod(unit.offset + at, step)
                    piece = data[at : at + step - within]
                    os.pwrite(segments[firsts[unit.part] + number], piece, within)
                    at += len(piece)

    def _finds_damage(self, unit: int) -> bool:
        if not self.does.corrupt or unit < len(self.checkpoint.manifest.units) - 1:
            return False
        self.does.corrupt -= 1
        return True

    async def _pace(self, at: int) -> None:
        if self.does.fail_at is not None and at >= self.does.fail_at:
            raise _gone()
        if at == self.does.stop_at:
            self.does.stopped.set()
            await self.does.go_on.wait()


class _Memory:
    """Sealed memfds of one stream, which the store counts as held while they exist."""

    def __init__(self, store: FakeStore) -> None:
        self._store, self._descriptors, self._token = store, list[int](), secrets.token_bytes(16)

    def __enter__(self) -> "_Memory":
        self._store.held += 1
        self._store.none_held.clear()
        return self

    def __exit__(self, *exc: object) -> None:
        self._store._offers.pop(self._token, None)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._store.held -= 1
        if not self._store.held:
            self._store.none_held.set()

    def segment(self, size: int) -> int:
        """A descriptor of that much memory."""
        does = self._store.does
        descriptor = os.memfd_create(MEMORY, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._descriptors.append(descriptor)
        os.ftruncate(descriptor, size - 1 if does.short_segments else size)
        os.pwrite(descriptor, bytes([FRESH]) * (size // 2), 0)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, does.seals)
        return descriptor

    def offer(self, descriptors: list[int], segment_bytes: int | None = None) -> pb.SharedMemory:
        """How a worker gets them."""
        does = self._store.does
        self._store._offers[self._token] = does.hand_over(descriptors)
        told = does.told_segment_bytes
        return pb.SharedMemory(
            socket_path=str(self._store.socket_path) + (".not" if does.wrong_socket else ""),
            token=self._token,
            segment_bytes=(segment_bytes or does.segment_bytes) if told is None else told,
        )


def _damaged() -> MeshError:
    return DataLoss("its bytes do not have its hash", reason="CORRUPT_UNIT")


def _gone() -> MeshError:
    return Unreachable("the store is gone", reason="STOPPING")


@asynccontextmanager
async def serving(checkpoint: Checkpoint) -> AsyncIterator[tuple[FakeStore, str]]:
    """The store and its address."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-fake-") as directory:
        store = FakeStore(checkpoint, Path(directory, "memory.sock"))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(str(store.socket_path))
        listener.listen()
        server = aio.server(interceptors=[Surround()])
        store_pb2_grpc.add_StoreServiceServicer_to_server(store, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with asyncio.TaskGroup() as group:
            memory = group.create_task(store.serve_memory(listener))
            try:
                yield store, f"127.0.0.1:{port}"
            finally:
                await server.stop(0)
                memory.cancel()
                listener.close()
