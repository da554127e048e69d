"""Real processes for tests: a Valkey, and any of our services, started as an operator would, and ended for sure."""

import asyncio
import os
import re
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mesh.child import end
from mesh.facts import Kind
from mesh.state.embedded import embedded_redis

ROOT = Path(__file__).resolve().parent.parent
START_S = 90.0
END_S = 20.0
LOG_TAIL = 4000
LISTENS = re.compile(r"\w+ (?P<id>\S+) listens on (?P<address>\S+)")
QUICK_END = {"drain_s": 0, "grace_s": 1}
RUN = (
    "import runpy; from mesh.child import die_with_parent; "
    "die_with_parent(); runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
)


class DidNotStart(AssertionError):
    """A service ended, or said nothing; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Started:
    """A service that listens."""

    kind: Kind
    id: str
    address: str
    process: asyncio.subprocess.Process
    log: Path  # what it wrote to stderr

    async def kill(self) -> None:
        """SIGKILL: it tidies nothing up. Returns when it is gone."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def process(kind: Kind, **settings: object) -> AsyncIterator[Started]:
    """Runs `python -m services.<kind>` until the context is closed. Raises DidNotStart.

    Each setting becomes WHIMBREL_<NAME>; say at least redis_url. No other WHIMBREL_* variable reaches the process.
    """
    with tempfile.TemporaryDirectory(prefix=f"whimbrel-test-{kind}-") as scratch:
        log = Path(scratch, "stderr")
        child = await _spawn(kind, log, QUICK_END | settings)
        try:
            yield await _listening(kind, child, log)
        finally:
            await end(child, END_S)


async def _spawn(kind: Kind, log: Path, settings: dict[str, object]) -> asyncio.subprocess.Process:
    env = {name: value for name, value in os.environ.items() if not name.startswith("WHIMBREL_")}
    env |= {f"WHIMBREL_{name.upper()}": str(value) for name, value in settings.items()}
    with log.open("wb") as stderr:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", RUN.format(module=f"services.{kind}")),
            cwd=ROOT,
            env=env | {"OMP_NUM_THREADS": "1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )


async def _listening(kind: Kind, child: asyncio.subprocess.Process, log: Path) -> Started:
    assert child.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            async for line in child.stdout:
                if said := LISTENS.match(line.decode()):
                    return Started(kind, said["id"], said["address"], child, log)
    except TimeoutError:
        pass
    raise DidNotStart(f"{kind} does not listen; its log ends: {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-LOG_TAIL:]


@contextmanager
def valkey() -> Iterator[str]:
    """The address of a Valkey server.

    It dies with the thread that made it, so it gets one. Make it before gRPC has threads here, because that forks.
    """
    running: Future[tuple[str, Callable[[], object]]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve_until_told(running)), name="valkey")
    thread.start()
    url, stop = running.result()
    try:
        yield url
    finally:
        stop()
        thread.join()


async def _serve_until_told(running: "Future[tuple[str, Callable[[], object]]]") -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    try:
        async with embedded_redis() as url:
            running.set_result((url, partial(loop.call_soon_threadsafe, told.set)))
            await told.wait()
    except BaseException as error:
        if not running.done():
            running.set_exception(error)
        raise
