"""whimbrel demo: the main job, once through; and nothing is left, however it ends."""

import asyncio
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Whimbrel
from tests.cli.gone import below, until_gone


@pytest.fixture
def scratch() -> Iterator[Path]:
    """The demo's temporary directory; a short path, for Unix sockets are below it."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


async def test_the_demo_starts_cold_goes_to_zero_wakes_from_dram_moves_an_answer_and_survives_a_worker(
    launcher: Whimbrel, scratch: Path
) -> None:
    demo = await launcher.start("demo", variables=(f"TMPDIR={scratch}",))
    out, err = await demo.communicate()
    assert (demo.returncode, err) == (0, b"")
    shown = out.decode()
    table = [line.split() for line in shown.partition("What it took")[2].splitlines()[2:]]
    starts = [
        next(word for word in row if word in {"warm", "dram", "disk", "origin"}) for row in _without_titles(table)
    ]
    assert starts == ["disk", "warm", "dram", "disk", "warm", "warm", "warm"]
    assert shown.index("loading from disk") < shown.index("loading from DRAM")
    assert "(asked, kv)" in shown
    assert "(worker lost, rebuilt)" in shown
    assert shown.count("token for token as before; where it went on") == 2
    assert not _left(scratch)


def _left(directory: Path) -> list[Path]:
    """What we left in a temporary directory; torch keeps a cache of its own there."""
    return list(directory.glob("whimbrel*"))


def _without_titles(table: list[list[str]]) -> list[list[str]]:
    """Rows from the model's name on: titles speak of warm and DRAM too."""
    names = {"shorebird", "tiny-qwen", "tiny-mixtral"}
    return [row[next(i for i, word in enumerate(row) if word in names) :] for row in table if row]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_demo_that_is_stopped_leaves_nothing(
    launcher: Whimbrel, scratch: Path, number: signal.Signals, code: int
) -> None:
    demo = await launcher.start("demo", variables=(f"TMPDIR={scratch}",))
    assert demo.stdout
    async with asyncio.timeout(60):
        await demo.stdout.readuntil(b"worker-2")
    started = below(demo.pid)
    assert len(started) >= 6
    demo.send_signal(number)
    await demo.communicate()
    assert demo.returncode == code
    await asyncio.gather(*(until_gone(pid, within_s=60) for pid in started))
    assert not _left(scratch)
