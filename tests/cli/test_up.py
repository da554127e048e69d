"""whimbrel up: what it prints works when pasted, and nothing is left when it ends."""

import asyncio
import itertools
import signal
import sys
from pathlib import Path

from cli.demo_models import MODELS
from tests.cli.conftest import RUN
from tests.cli.gone import below, until_gone

ROOT = Path(__file__).parents[2]
LAST_LINE = "Ctrl-C ends the cluster."


async def _up(data: Path, *arguments: str) -> asyncio.subprocess.Process:
    """Started on any free port."""
    line = [sys.executable, "-c", RUN, "up", "--data", str(data), "--gateway-port", "0", *arguments]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*line, stdout=pipe, stderr=pipe, stdin=asyncio.subprocess.DEVNULL)


async def _until_ready(up: asyncio.subprocess.Process) -> list[str]:
    """Every line up to the last."""
    assert up.stdout
    lines: list[str] = []
    async with asyncio.timeout(120):
        while not lines or lines[-1] != LAST_LINE:
            read = await up.stdout.readline()
            assert read, (await up.communicate())[1].decode()
            lines.append(read.decode().rstrip())
    return lines


async def _ctrl_c(up: asyncio.subprocess.Process) -> None:
    """Ends it; nothing that it started may be left."""
    started = below(up.pid)
    up.send_signal(signal.SIGINT)
    _, err = await up.communicate()
    assert (up.returncode, err) == (0, b"")
    await asyncio.gather(*(until_gone(pid, within_s=1) for pid in started))


async def _paste(line: str) -> str:
    """What a command prints when pasted into a shell at the repository's root."""
    pipe = asyncio.subprocess.PIPE
    shell = await asyncio.create_subprocess_shell(line, cwd=ROOT, stdout=pipe, stderr=pipe)
    out, err = await shell.communicate()
    assert shell.returncode == 0, f"{line}\n{err.decode()}"
    return out.decode()


async def test_each_command_that_it_prints_works_when_pasted(tmp_path: Path) -> None:
    up = await _up(tmp_path, "--workers", "1")
    lines = await _until_ready(up)
    commands = [after for before, after in itertools.pairwise(lines) if before.startswith("# ")]
    assert len(commands) == 6
    shown = [await _paste(command) for command in commands]
    assert all(shown)
    assert all(model.name in shown[2] for model in MODELS)
    await _ctrl_c(up)


async def test_what_was_deployed_is_there_again_the_next_time(tmp_path: Path) -> None:
    first = await _up(tmp_path, "--workers", "1")
    assert "deploying the demo's models" in await _until_ready(first)
    await _ctrl_c(first)
    second = await _up(tmp_path, "--workers", "1")
    lines = await _until_ready(second)
    assert "deploying the demo's models" not in lines
    [listing] = [after for before, after in itertools.pairwise(lines) if before == "# what can be asked"]
    shown = await _paste(listing)
    assert all(model.name in shown for model in MODELS)
    await _ctrl_c(second)


async def test_a_process_that_is_killed_is_started_again(tmp_path: Path) -> None:
    up = await _up(tmp_path, "--workers", "1", "--empty")
    lines = await _until_ready(up)
    [pid] = [int(line.split()[2]) for line in lines if line.startswith("worker-1")]
    await _paste(f"kill -9 {pid}")
    assert up.stderr
    async with asyncio.timeout(60):
        assert await up.stderr.readline() == b"worker-1 ended with exit code -9; starting it again\n"
        assert (await up.stderr.readline()).startswith(b"worker-1 serves again on 127.0.0.1:")
    await _ctrl_c(up)
