"""The default Redis: a real server, nobody else's, gone with its parent."""

import stat
from pathlib import Path

import pytest
import redis.asyncio as redis
from redis.exceptions import RedisError

from mesh.state.embedded import embedded_redis


async def ask(url: str, *command: str) -> object:
    """One command on a connection of its own."""
    async with redis.from_url(url, decode_responses=True) as client:
        answer: object = await client.execute_command(*command)  # type: ignore[no-untyped-call]
        return answer


async def test_it_answers_on_a_socket_that_nobody_else_can_open() -> None:
    async with embedded_redis() as url:
        assert await ask(url, "PING")
        directory = Path(url.removeprefix("unix://")).parent
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert await ask(url, "CONFIG", "GET", "port") == {"port": "0"}


async def test_nothing_of_it_stays() -> None:
    async with embedded_redis() as url:
        directory = Path(url.removeprefix("unix://")).parent
    assert not directory.exists()
    with pytest.raises(RedisError):
        await ask(url, "PING")


async def test_with_a_directory_it_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    async with embedded_redis(tmp_path) as url:
        await ask(url, "SET", "key", "value")
    async with embedded_redis(tmp_path) as url:
        assert await ask(url, "GET", "key") == "value"


async def test_without_one_it_forgets() -> None:
    async with embedded_redis() as url:
        await ask(url, "SET", "key", "value")
    async with embedded_redis() as url:
        assert await ask(url, "GET", "key") is None
