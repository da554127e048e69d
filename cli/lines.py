"""Lines of a terminal, a pipe or a file, without holding up the event loop."""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator

CHUNK_BYTES = 1 << 16


async def lines(descriptor: int) -> AsyncGenerator[str]:
    """Each line without its end, as soon as it has come, the last one with or without a newline.

    A thread reads, since an event loop cannot wait for a file. It is nobody's to end while it waits for a person, so
    it is a daemon, and reads the descriptor itself: sys.stdin's lock must be free when the interpreter goes.
    """
    loop = asyncio.get_running_loop()
    read: asyncio.Queue[bytes] = asyncio.Queue()

    def follow() -> None:
        while chunk := os.read(descriptor, CHUNK_BYTES):
            loop.call_soon_threadsafe(read.put_nowait, chunk)
        loop.call_soon_threadsafe(read.put_nowait, b"")

    threading.Thread(target=follow, name="lines", daemon=True).start()
    rest = b""
    while chunk := await read.get():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
