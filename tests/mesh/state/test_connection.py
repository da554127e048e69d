"""The connection to the state: where nothing comes about, nothing stays open."""

import asyncio
from pathlib import Path

from mesh.state.connection import State


async def test_who_is_stopped_while_redis_says_nothing_hangs_up(tmp_path: Path) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read(1)
        asked.set()
        while await reader.read(1024):
            pass
        left.set()
        writer.close()

    async with asyncio.timeout(30), await asyncio.start_unix_server(silent, tmp_path / "redis.sock"):
        greeting = asyncio.create_task(State(f"unix://{tmp_path}/redis.sock", "test").__aenter__())
        await asked.wait()
        greeting.cancel()
        await asyncio.wait([greeting])
        await left.wait()
