"""A Python module in a process of its own, which gives a line for each line that it is told."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import IO

from benchmarks.series import BenchmarkBroken
from cli.process import command
from mesh.child import end

ANSWER_S = 300.0
GRACE_S = 10.0
TAIL_BYTES = 2000


class Child:
    """Its stdout is for answers; its stderr goes to a log, whose end is in the error when it dies."""

    def __init__(self, module: str, process: asyncio.subprocess.Process, log: IO[bytes]) -> None:
        self._module, self._process, self._log = module, process, log

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def answer(self) -> str:
        """Its next line. BenchmarkBroken when it ends first, or takes too long."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(ANSWER_S):
                line = await self._process.stdout.readline()
        except TimeoutError as error:
            raise BenchmarkBroken(f"{self._module} said nothing for {ANSWER_S:g} s\n{self._tail()}") from error
        if not line:
            raise BenchmarkBroken(f"{self._module} ended without an answer; its log ends:\n{self._tail()}")
        return line.decode().rstrip("\n")

    async def ask(self, line: str) -> str:
        """Tells it a line, and gives its next one."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()
        return await self.answer()

    def _tail(self) -> str:
        self._log.seek(0)
        return self._log.read()[-TAIL_BYTES:].decode(errors="replace")


@asynccontextmanager
async def child(
    module: str,
    arguments: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> AsyncIterator[Child]:
    """Runs `module` until the block ends; `settings` are added to its environment, `python` may be another's."""
    with tempfile.TemporaryFile(prefix="whimbrel-child-") as log:
        process = await asyncio.create_subprocess_exec(
            *command(module, tuple(arguments), settings, python),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
        try:
            yield Child(module, process, log)
        finally:
            await end(process, GRACE_S)


def reply(line: str) -> None:
    """What a child's own code answers with."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
