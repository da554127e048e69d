"""The command as a process of its own, on pipes or on a terminal, against a fake gateway."""

import asyncio
import os
import pty
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.cli.fake_gateway import Fakes

RUN = "from cli.app import main; main()"


@dataclass(frozen=True, slots=True)
class Ended:
    """What a finished command left."""

    code: int
    out: str
    err: str


class Whimbrel:
    """Runs the whimbrel command against one gateway."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._started: list[asyncio.subprocess.Process] = []

    async def start(
        self, *arguments: str, stdin: int = asyncio.subprocess.DEVNULL, variables: tuple[str, ...] = ()
    ) -> asyncio.subprocess.Process:
        """On pipes; `variables` such as "TMPDIR=/tmp" are added to its environment."""
        pipe = asyncio.subprocess.PIPE
        line = ["env", *variables, *self._line(arguments)]
        process = await asyncio.create_subprocess_exec(*line, stdin=stdin, stdout=pipe, stderr=pipe)
        self._started.append(process)
        return process

    async def end(self) -> None:
        """Kills what a failed test left running."""
        for process in self._started:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    async def run(self, *arguments: str, stdin: bytes | None = None) -> Ended:
        """On pipes, to its end."""
        source = asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE
        process = await self.start(*arguments, stdin=source)
        out, err = await process.communicate(stdin)
        return Ended(process.returncode or 0, out.decode(), err.decode())

    async def run_on_terminal(self, *arguments: str) -> Ended:
        """With stdout and stderr on one pseudo-terminal, 100 columns wide; `out` is what it showed."""
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            "env", "COLUMNS=100", "TERM=xterm", *self._line(arguments), stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        shown = await asyncio.to_thread(_read_to_end, ours)
        return Ended(await process.wait(), shown.decode(), "")

    def _line(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-c", RUN, "--gateway", self.address, *arguments]


def _read_to_end(terminal: int) -> bytes:
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(terminal)
    return shown


@pytest.fixture
async def fakes() -> AsyncIterator[Fakes]:
    """A fake gateway on a real socket."""
    async with Fakes().serving() as serving:
        yield serving


@pytest.fixture
async def whimbrel(fakes: Fakes) -> AsyncIterator[Whimbrel]:
    """The command, told to talk to `fakes`."""
    command = Whimbrel(fakes.address)
    yield command
    await command.end()


@pytest.fixture
async def launcher() -> AsyncIterator[Whimbrel]:
    """The command for clusters of its own."""
    command = Whimbrel("127.0.0.1:1")
    yield command
    await command.end()
