"""Shared memory from a store on the same node: a token goes over its Unix socket, segments come back and are mapped."""

import asyncio
import fcntl
import mmap
import os
import socket
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mesh.errors import Unreachable
from mesh.mapping import Mapping
from mesh.sockets import readable

TOKEN_BYTES = 16
DESCRIPTORS_PER_MESSAGE = 128  # Linux passes at most 253
FETCH_S = 5.0
MOST_SEGMENTS = 1 << 15  # half of what the kernel lets a process map
MOST_BYTES = 1 << 46  # of a part: half of a process's address space


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """Where a process on the store's node gets its memory: for part after part, or as the slots of a ring, segments of
    `segment_bytes` each, the last one of a part shorter."""

    socket_path: Path
    token: bytes
    segment_bytes: int


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a segment belongs: bytes [offset, offset + length) of a mapping."""

    mapping: Mapping
    offset: int
    length: int


async def map_parts(shared: SharedMemory, sizes: Sequence[int], *, writable: bool) -> list[Mapping]:
    """Each part of `sizes` bytes, contiguous in memory, its pages shared with every other process that maps them.

    The mappings outlive the descriptors, which are closed. `writable`: the mapping is private, so a stray write copies
    its page here and reaches nobody else. (Torch warns of memory that it cannot write.)

    Raises Unreachable, reason SHARED_MEMORY_UNREACHABLE, when the store is on another node, in another container, does
    not know the token (any more), or hands over what reading could fail on: then read the units as a stream.
    """
    async with _reaching(shared):
        _check(shared, sizes)
        with ExitStack() as failing:
            mappings = [_released_by(failing, Mapping(size, writable=writable)) for size in sizes]
            places = list(_places(mappings, shared.segment_bytes))
            count = 0
            async with aclosing(_batches(shared)) as batches:
                while count < len(places):
                    with _closing(await anext(batches, [])) as descriptors:
                        if not 0 < len(descriptors) <= len(places) - count:
                            raise ConnectionError(f"{count + len(descriptors)} segments came, not {len(places)}")
                        for descriptor in descriptors:
                            _map(descriptor, places[count])
                            count += 1
            failing.pop_all()
        return mappings


async def map_slots(shared: SharedMemory) -> list[Mapping]:
    """The slots of a ring, as many as the store hands over, read-only. Raises Unreachable as `map_parts` does."""
    async with _reaching(shared):
        _check(shared, [])
        slots: list[Mapping] = []
        with ExitStack() as failing:
            async with aclosing(_batches(shared)) as batches:
                async for batch in batches:
                    with _closing(batch) as descriptors:
                        if len(slots) + len(descriptors) > MOST_SEGMENTS:
                            raise ConnectionError(f"more than {MOST_SEGMENTS} slots came")
                        for descriptor in descriptors:
                            slots.append(_released_by(failing, Mapping(shared.segment_bytes, writable=False)))
                            _map(descriptor, _Place(slots[-1], 0, shared.segment_bytes))
            if not slots:
                raise ConnectionError("its ring has no slots")
            failing.pop_all()
        return slots


def close_all(descriptors: Sequence[int]) -> None:
    """Closes descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)


def _released_by(stack: ExitStack, mapping: Mapping) -> Mapping:
    stack.callback(mapping.release)
    return mapping


@contextmanager
def _closing(descriptors: list[int]) -> Iterator[list[int]]:
    try:
        yield descriptors
    finally:
        close_all(descriptors)


@asynccontextmanager
async def _reaching(shared: SharedMemory) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(FETCH_S):
            yield
    except (OSError, TimeoutError) as error:
        raise Unreachable(
            f"the store's memory cannot be mapped through {shared.socket_path}: {str(error) or 'no answer'}",
            reason="SHARED_MEMORY_UNREACHABLE",
        ) from error


def _check(shared: SharedMemory, sizes: Sequence[int]) -> None:
    """What the store says must make sense before anything is reserved for it."""
    step = shared.segment_bytes
    if not 0 < step <= MOST_BYTES or step % mmap.PAGESIZE:
        raise ConnectionError(f"segments of {step} bytes are not whole pages")
    if sum(-(-size // step) for size in sizes) > MOST_SEGMENTS or any(size > MOST_BYTES for size in sizes):
        raise ConnectionError(f"parts of {list(sizes)} bytes are too many segments of {step} bytes")


def _places(mappings: Sequence[Mapping], segment_bytes: int) -> Iterator[_Place]:
    for mapping in mappings:
        for offset in range(0, mapping.bytes, segment_bytes):
            yield _Place(mapping, offset, min(segment_bytes, mapping.bytes - offset))


def _map(descriptor: int, place: _Place) -> None:
    """Reading beyond the end of a segment, or of one that shrinks later, would kill this process."""
    if os.fstat(descriptor).st_size < place.length:
        raise ConnectionError(f"a segment has {os.fstat(descriptor).st_size} bytes, not {place.length}")
    if not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
        raise ConnectionError("a segment is not sealed against shrinking")
    place.mapping.place(descriptor, place.offset, place.length)


async def _batches(shared: SharedMemory) -> AsyncGenerator[list[int], None]:
    """Descriptors as they come, which the receiver closes, until the store has no more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as store:
        await asyncio.get_running_loop().sock_connect(store, str(shared.socket_path))
        await asyncio.get_running_loop().sock_sendall(store, shared.token)
        first = True
        while (batch := await _receive(store)) is not None:
            first = False
            yield batch
        if first:
            raise ConnectionError("it closed the connection: the token is unknown or no longer valid")


async def _receive(store: socket.socket) -> list[int] | None:
    """None at the end."""
    await readable(store)  # asyncio reads bytes from a socket, not descriptors
    room = socket.CMSG_SPACE(DESCRIPTORS_PER_MESSAGE * array("i").itemsize)
    data, ancillary, _, _ = store.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)  # recv_fds of Python 3.11 drops the flag
    descriptors = array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return descriptors.tolist() if data else None
