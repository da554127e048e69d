"""whimbrel up: what it prints works when pasted, and nothing is left when it ends."""

import asyncio
import itertools
import os
import signal
from pathlib import Path

from cli.demo_models import MODELS, TRAINED_DIR
from tests.cli.conftest import Whimbrel
from tests.cli.gone import below, until_gone

ROOT = Path(__file__).parents[2]
LAST_LINE = "Ctrl-C ends the cluster."


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
    await asyncio.gather(*(until_gone(pid, within_s=60) for pid in started))


async def _paste(line: str) -> str:
    """What a command prints when pasted into a shell at the repository's root."""
    pipe = asyncio.subprocess.PIPE
    shell = await asyncio.create_subprocess_shell(line, cwd=ROOT, stdout=pipe, stderr=pipe)
    out, err = await shell.communicate()
    assert shell.returncode == 0, f"{line}\n{err.decode()}"
    return out.decode()


async def test_each_command_that_it_prints_works_when_pasted(launcher: Whimbrel, tmp_path: Path) -> None:
    up = await launcher.start("up", "--data", str(tmp_path), "--workers", "1", "--gateway-port", "0")
    lines = await _until_ready(up)
    commands = [after for before, after in itertools.pairwise(lines) if before.startswith("# ")]
    assert len(commands) == 6
    shown = [await _paste(command) for command in commands]
    assert all(shown)
    assert all(model.name in shown[2] for model in MODELS)
    await _ctrl_c(up)


async def test_what_was_deployed_is_there_again_and_killed_processes_are_started_again(
    launcher: Whimbrel, tmp_path: Path
) -> None:
    arguments = ("up", "--data", str(tmp_path), "--workers", "1", "--gateway-port", "0", "--empty")
    first = await launcher.start(*arguments)
    listing = _listing(await _until_ready(first))
    assert await _paste(listing) == ""
    await _paste(listing.replace(" models", f" deploy curlew {TRAINED_DIR}"))
    await _ctrl_c(first)

    (tmp_path / "logs" / "scheduler-1.log").unlink()  # to be read for who leads then
    second = await launcher.start(*arguments, "--schedulers", "2")
    lines = await _until_ready(second)
    assert "curlew" in await _paste(_listing(lines))
    generating = _listing(lines).replace(" models", " generate curlew Hello")
    assert await _paste(generating)
    leader, standby = sorted(("scheduler-1", "scheduler-2"), key=lambda name: "leading" not in _log(tmp_path, name))
    assert "standing by" in _log(tmp_path, standby)
    for name in (leader, "worker-1"):
        [pid] = [int(line.split()[2]) for line in lines if line.startswith(name)]
        os.kill(pid, signal.SIGKILL)
        assert second.stderr
        async with asyncio.timeout(60):
            assert await second.stderr.readline() == f"{name} ended with exit code -9; starting it again\n".encode()
            assert (await second.stderr.readline()).startswith(f"{name} serves again on 127.0.0.1:".encode())
    assert await _paste(generating)
    await _ctrl_c(second)


def _listing(lines: list[str]) -> str:
    """The printed command that lists the catalogue."""
    return lines[lines.index("# what can be asked") + 1]


def _log(data: Path, process: str) -> str:
    return (data / "logs" / f"{process}.log").read_text()
