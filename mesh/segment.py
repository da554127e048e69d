"""Shared memory from a store on the same node: a token goes over its Unix socket, one descriptor a part comes back."""

import asyncio
import mmap
import os
import socket
from array import array
from collections.abc import Sequence
from pathlib import Path

from mesh.errors import Unreachable

TOKEN_BYTES = 16
DESCRIPTORS_PER_MESSAGE = 128  # Linux passes at most 253
FETCH_S = 5.0


async def fetch_parts(socket_path: Path | str, token: bytes, parts: int) -> list[int]:
    """One read-only memfd a part, in the manifest's order; the caller closes them. A mapping outlives its descriptor.

    Raises Unreachable, reason SHARED_MEMORY_UNREACHABLE, when the store is on another node, in another container, or
    does not know the token (any more): then read the units as a stream.
    """
    received: list[int] = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as store:
            async with asyncio.timeout(FETCH_S):
                await asyncio.get_running_loop().sock_connect(store, str(socket_path))
                await asyncio.get_running_loop().sock_sendall(store, token)
                while len(received) < parts:
                    received += await _receive(store)
    except (OSError, TimeoutError) as error:
        close_all(received)
        raise Unreachable(
            f"the store's memory cannot be mapped through {socket_path}: {str(error) or 'no answer'}",
            reason="SHARED_MEMORY_UNREACHABLE",
        ) from error
    except BaseException:
        close_all(received)
        raise
    return received


def map_parts(descriptors: Sequence[int], sizes: Sequence[int]) -> list[mmap.mmap]:
    """Maps each part, sharing its pages with every other process that has it, and closes the descriptors.

    The mapping is private: a stray write copies its page here and reaches nobody else. (Torch warns of memory that it
    cannot write.)

    `sizes` are the parts' bytes. Raises Unreachable when a segment is smaller than its part: reading beyond its end
    would kill the process.
    """
    try:
        for descriptor, size in zip(descriptors, sizes, strict=True):
            if os.fstat(descriptor).st_size < size:
                raise Unreachable("the store's memory is smaller than its part", reason="SHARED_MEMORY_UNREACHABLE")
        return [
            mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            for descriptor, size in zip(descriptors, sizes, strict=True)
        ]
    finally:
        close_all(descriptors)


def close_all(descriptors: Sequence[int]) -> None:
    """Closes descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)


async def _receive(store: socket.socket) -> list[int]:
    await _readable(store)
    room = socket.CMSG_SPACE(DESCRIPTORS_PER_MESSAGE * array("i").itemsize)
    data, ancillary, _, _ = store.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)  # recv_fds of Python 3.11 drops the flag
    descriptors = array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    if not data:
        raise ConnectionError("it closed the connection: the token is unknown or no longer valid")
    return descriptors.tolist()


async def _readable(store: socket.socket) -> None:
    """asyncio can read bytes from a socket, not descriptors."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(store, _once, ready)
    try:
        await ready
    finally:
        loop.remove_reader(store)


def _once(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
