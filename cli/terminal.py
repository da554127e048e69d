"""Where a command writes and whom it asks, how an error looks, and what a signal does to a command."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.text import Text

from mesh.clients.channel import connect
from mesh.clients.gateway import GatewayClient, NoGateway
from mesh.errors import MeshError

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PIPED_WIDTH = 200  # a table in a pipe must not be folded to a terminal's 80 columns
CONTROLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}


@dataclass(frozen=True, slots=True)
class Terminal:
    """A command's two outputs, and the gateways it talks to: to the first, and to others when that goes away."""

    out: Console
    err: Console
    gateways: tuple[str, ...]

    @classmethod
    def open(cls, *gateways: str) -> "Terminal":
        """On this process's stdout and stderr."""
        return cls(_console(stderr=False), _console(stderr=True), gateways)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[GatewayClient]:
        """A client of the gateways."""
        async with AsyncExitStack() as stack:
            channel, *others = [await stack.enter_async_context(connect(address)) for address in self.gateways]
            yield GatewayClient(channel, self.gateways[0], elsewhere=others)

    def write(self, text: str) -> None:
        """A model's text, at once and unchanged; on a terminal its control characters are made visible."""
        self.out.file.write(text.translate(CONTROLS) if self.out.is_terminal else text)
        self.out.file.flush()

    def failed(self, error: MeshError) -> None:
        """The error on stderr: a red line, then what the caller can do about it."""
        first, _, rest = error.message.partition("\n")
        line = Text.assemble((f"error: {first}", "bold red"), (f" [{error.reason}]", "red"))
        self.err.print(line, soft_wrap=True, highlight=False)
        for hint in [*rest.splitlines(), *hints(error)]:
            self.err.print(Text(f"  {hint}"), soft_wrap=True, highlight=False)


def hints(error: MeshError) -> list[str]:
    """What the error says beyond its message."""
    lines = [f"{v.field}: {v.description}" for v in error.violations if v.description not in error.message]
    if isinstance(error, NoGateway):
        return [*lines, "start a cluster with: whimbrel up (or name another gateway: whimbrel --gateway HOST:PORT ...)"]
    if error.retry_after_s is not None:
        lines.append(f"try again in {error.retry_after_s:g} s")
    return lines


def run(terminal: Terminal, work: Coroutine[object, object, None], *, stopped_code: int | None = None) -> None:
    """Runs a command. A MeshError is shown and exits 1; the first SIGINT, SIGTERM or SIGHUP cancels the command,
    which tidies up and exits 128 + the signal's number, or `stopped_code`.
    """
    try:
        stopped_by = asyncio.run(_until_stopped(work))
    except MeshError as error:
        terminal.failed(error)
        raise typer.Exit(1) from error
    if stopped_by is not None:
        raise typer.Exit(128 + stopped_by if stopped_code is None else stopped_code)


async def _until_stopped(work: Coroutine[object, object, None]) -> signal.Signals | None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    stops: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if not stops and task:  # a second one must not break off the tidying up
            task.cancel()
        stops.append(number)

    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            loop.add_signal_handler(number, stop, number)
    try:
        await work
    except asyncio.CancelledError:
        if not stops:
            raise
    return stops[0] if stops else None


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, markup=False, width=None if stream.isatty() else PIPED_WIDTH)
