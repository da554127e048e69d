"""One process of a local cluster: started, heard until it serves, ended. Which processes there are is cluster.py's."""

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mesh.errors import Unreachable
from mesh.facts import Kind

LISTENS = re.compile(rb"^\S+ \S+ listens on (\S+)$", re.MULTILINE)
TAIL_LINES = 15
TAIL_BYTES = 16 << 10


def command(
    module: str,
    arguments: tuple[str, ...] = (),
    settings: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> list[str]:
    """The command line of one of our modules as a child that dies with this process.

    `settings` are added to the environment that it inherits; -P keeps a user's folder from shadowing our packages.
    """
    assignments = [f"{name}={value}" for name, value in (settings or {}).items()]
    return ["env", *assignments, python, "-P", "-m", "cli.child", str(os.getpid()), module, *arguments]


@dataclass(frozen=True, slots=True)
class Program:
    """What to start: a service's module under an id, with its settings."""

    kind: Kind
    id: str
    settings: Mapping[str, str]

    @property
    def module(self) -> str:
        """The module that python -m runs."""
        return f"services.{self.kind}"


class ServiceProcess(asyncio.SubprocessProtocol):
    """A service in its own process and session, so that Ctrl-C reaches only the launcher.

    `address` is set by the line that the service prints when it serves, and fails when the process ends first;
    `ended` is the exit code. Both outputs go to `log`.
    """

    def __init__(self, program: Program, log: Path) -> None:
        loop = asyncio.get_running_loop()
        self.program, self.log = program, log
        self.address: asyncio.Future[str] = loop.create_future()
        self.ended: asyncio.Future[int] = loop.create_future()
        self.wanted = True  # False once we end it ourselves
        self._heard = b""
        self._transport: asyncio.SubprocessTransport | None = None

    @property
    def pid(self) -> int:
        """The process's id; -1 before it is started."""
        return self._transport.get_pid() if self._transport else -1

    async def start(self) -> None:
        """Starts it; await `address` to know that it serves."""
        line = command(self.program.module, settings=self.program.settings)
        with self.log.open("ab") as log:
            self._transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: self, *line, stdin=asyncio.subprocess.DEVNULL, stderr=log, start_new_session=True
            )

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keeps what the process prints, and looks for the line."""
        with self.log.open("ab") as log:
            log.write(data)
        if self.address.done():
            return
        self._heard += data
        if found := LISTENS.search(self._heard):
            self.address.set_result(found[1].decode())

    def process_exited(self) -> None:
        """Sets `ended`, and fails `address` when nobody will set it any more."""
        code = self._transport.get_returncode() if self._transport else None
        self.ended.set_result(-1 if code is None else code)
        if self.address.done():
            return
        if self.wanted:
            self.address.set_exception(self._never_served())
            self.address.exception()  # marks it as seen: a launcher that gives up on another process never looks
        else:
            self.address.cancel()

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def kill(self) -> None:
        """SIGKILL, if it still lives."""
        self.wanted = False
        if self._transport and not self.ended.done():
            self._transport.kill()

    async def end(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after `grace_s` seconds or when cancelled; returns when the process is gone."""
        self.wanted = False
        if not self._transport:
            return
        try:
            if not self.ended.done():
                self._transport.terminate()
                await asyncio.wait([self.ended], timeout=grace_s)
        finally:
            self.kill()
        await asyncio.wait([self.ended])
        self._transport.close()

    def _never_served(self) -> Unreachable:
        return Unreachable(
            f"{self.program.id} ended with exit code {self.ended.result()} before it served; the end of {self.log}:\n"
            f"{self.tail()}",
            reason="PROCESS_ENDED",
            metadata={"process": self.program.id},
        )
