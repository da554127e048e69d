"""A Redis that a test may stop, empty, freeze and start again; and members without a process."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.child import end
from mesh.facts import Kind, Member
from mesh.state.connection import State
from mesh.state.embedded import server_binary
from mesh.state.mirror import Mirror

RUN = "import os, sys; from mesh.child import die_with_parent; die_with_parent(); os.execv(sys.argv[1], sys.argv[1:])"
WAIT_S = 60.0  # for what takes milliseconds on a machine that is not busy


def member(name: str = "w1", *, kind: Kind = Kind.WORKER, address: str = "here:1") -> Member:
    """A process without facts."""
    return Member(kind, name, "node", address)


async def seen(mirror: Mirror, *names: str) -> None:
    """Waits until exactly these members are alive."""
    assert await mirror.until(lambda facts: set(facts.members) == set(names), WAIT_S), mirror.facts.members


class Breakable:
    """A Valkey on a Unix socket that keeps its address over restarts; of its data none, or, with `keeps`, all."""

    def __init__(self, directory: Path, *, keeps: bool = False) -> None:
        self._socket = directory / "redis.sock"
        self._keeping = ("--appendonly", "yes", "--dir", str(directory)) if keeps else ()
        self.url = f"unix://{self._socket}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns when it answers."""
        line = (str(server_binary()), "--port", "0", "--unixsocket", str(self._socket), "--save", "")
        line += self._keeping
        nowhere = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(sys.executable, "-c", RUN, *line, stdout=nowhere)
        async with asyncio.timeout(WAIT_S):
            while not self._socket.exists():  # noqa: ASYNC110  nothing tells when a server begins to listen
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Ends it; unless it keeps them, its data are gone."""
        if self._process:
            self.thaw()
            await end(self._process, WAIT_S)
        self._process = None

    def freeze(self) -> None:
        """It neither answers nor hangs up."""
        assert self._process
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        if self._process and self._process.returncode is None:
            os.kill(self._process.pid, signal.SIGCONT)


@pytest.fixture
async def breakable() -> AsyncIterator[Breakable]:
    """A Redis of this test's own."""
    directory = Path(tempfile.mkdtemp(prefix="whimbrel-test-redis-"))
    server = Breakable(directory)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def mirror(state: State) -> AsyncIterator[Mirror]:
    """The facts of this test's cluster."""
    async with Mirror(state).running() as mirror:
        yield mirror
