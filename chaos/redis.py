"""A Valkey that keeps its data and its address, and can be killed and started again. It dies with this process."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import redis.asyncio as redis
from redis.exceptions import RedisError

from mesh.child import end
from mesh.state.embedded import server_binary

RUN = "import os, sys; from mesh.child import die_with_parent; die_with_parent(); os.execv(sys.argv[1], sys.argv[1:])"
START_S, GRACE_S, LOOK_S = 20.0, 5.0, 0.005


class Valkey:
    """Its data are in `directory`, where its socket is too."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.url = f"unix://{directory / 'redis.sock'}"
        self._process: asyncio.subprocess.Process | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Valkey"]:
        """From its first answer to its end."""
        try:
            await self.start()
            yield self
        finally:
            if self._process:
                self._signal(signal.SIGCONT)
                await end(self._process, GRACE_S)

    async def start(self) -> None:
        """Returns when it answers."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", RUN, str(server_binary()), "--port", "0", "--save", "", "--appendonly", "yes"),
            *("--unixsocket", str(self._directory / "redis.sock"), "--dir", str(self._directory)),
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        async with asyncio.timeout(START_S), redis.from_url(self.url) as client:
            while not await _answers(client):  # noqa: ASYNC110  nothing tells when a server begins to listen
                await asyncio.sleep(LOOK_S)

    async def kill(self) -> None:
        """SIGKILL; what it has told anybody is on the disk, or in the kernel, by then."""
        if self._process:
            self._process.kill()
            await self._process.wait()

    def stop(self) -> None:
        """It neither answers nor hangs up."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """It goes on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process and self._process.returncode is None:
            os.kill(self._process.pid, number)


async def _answers(client: redis.Redis) -> bool:
    try:
        return bool(await client.ping())
    except RedisError:
        return False
