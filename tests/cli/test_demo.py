"""whimbrel demo: the main job, once through; and nothing is left, however it ends."""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import RUN
from tests.cli.gone import below, until_gone


@pytest.fixture
def scratch() -> Iterator[Path]:
    """The demo's temporary directory; a short path, for Unix sockets are below it."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


async def _demo(scratch: Path) -> asyncio.subprocess.Process:
    line = ["env", f"TMPDIR={scratch}", sys.executable, "-c", RUN, "demo"]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*line, stdout=pipe, stderr=pipe, stdin=asyncio.subprocess.DEVNULL)


async def test_the_demo_starts_cold_answers_warm_goes_to_zero_and_wakes_from_dram(scratch: Path) -> None:
    demo = await _demo(scratch)
    out, err = await demo.communicate()
    assert (demo.returncode, err) == (0, b"")
    shown = out.decode()
    table = [line.split() for line in shown.partition("What it took")[2].splitlines()[2:]]
    starts = [
        next(word for word in row if word in {"warm", "dram", "disk", "origin"}) for row in _without_titles(table)
    ]
    assert starts == ["disk", "warm", "dram", "disk"]
    assert shown.index("loading from disk") < shown.index("loading from DRAM")
    assert _empty(scratch)


def _empty(directory: Path) -> bool:
    return next(directory.iterdir(), None) is None


def _without_titles(table: list[list[str]]) -> list[list[str]]:
    """Rows from the model's name on: titles speak of warm and DRAM too."""
    names = {"shorebird", "tiny-qwen", "tiny-mixtral"}
    return [row[next(i for i, word in enumerate(row) if word in names) :] for row in table if row]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_demo_that_is_stopped_leaves_nothing(scratch: Path, number: signal.Signals, code: int) -> None:
    demo = await _demo(scratch)
    assert demo.stdout
    async with asyncio.timeout(60):
        await demo.stdout.readuntil(b"worker-2")
    started = below(demo.pid)
    assert len(started) >= 6
    demo.send_signal(number)
    await demo.communicate()
    assert demo.returncode == code
    await asyncio.gather(*(until_gone(pid, within_s=1) for pid in started))
    assert _empty(scratch)
