"""Waiting for a socket that is used directly, where asyncio's own calls would lose what they had when cancelled."""

import asyncio
import socket


async def readable(one: socket.socket) -> None:
    """Returns when there is something to read, or somebody to accept."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(one, _once, ready)
    try:
        await ready
    finally:
        loop.remove_reader(one)


async def writable(one: socket.socket) -> None:
    """Returns when there is room for more."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(one, _once, ready)
    try:
        await ready
    finally:
        loop.remove_writer(one)


def _once(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
