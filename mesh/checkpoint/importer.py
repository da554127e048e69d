"""The parent's end of import_process.py: spawns it, hears it, ends it. No torch, and never a blocked event loop."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from mesh.checkpoint.errors import IMPORT_ERRORS, CheckpointError, ImportFailed
from mesh.checkpoint.origins.address import parse
from mesh.checkpoint.origins.environment import environment_for
from mesh.checkpoint.progress import ImportPhase, ImportProgress, OnProgress
from mesh.checkpoint.records import Manifest
from mesh.checkpoint.verify import load_manifest

GRACE_S = 5.0  # from SIGTERM, on which the child cleans up, to SIGKILL, after which a sweep does
LINE_BYTES = 1 << 17  # an error message, every character of it escaped
KEPT_STDERR_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Answer:
    """What the child said last: a digest or an error."""

    digest: str | None = None
    error: CheckpointError | None = None


async def import_in_child(source: str, root: Path, on_progress: OnProgress, base: Path | None = None) -> Manifest:
    """Imports the source at an address into `root`, in a process of one thread. Cancelling it ends that process.

    `base` is the manifest.json of the checkpoint that an adapter adapts.
    Raises BadAddress, the CheckpointError that the conversion raised, or ImportFailed if the process died.
    """
    process = await asyncio.create_subprocess_exec(
        *_command(source, root, base),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
        env=_environment(source),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.TaskGroup() as group:
            answering = group.create_task(_hear(process.stdout, on_progress))
            complaining = group.create_task(_tail(process.stderr))
            group.create_task(process.wait())
    finally:
        await _end(process)
    answer = answering.result()
    if answer.error is not None:
        raise answer.error
    if answer.digest is None:
        raise ImportFailed(f"importing {source} {_death(process)}; try again. Last words: {complaining.result()!r}")
    return await asyncio.to_thread(load_manifest, root / answer.digest)


def _command(source: str, root: Path, base: Path | None) -> tuple[str, ...]:
    child = (sys.executable, "-P", "-m", "mesh.checkpoint.import_process")
    options = () if base is None else ("--base", str(base))
    return (*child, source, str(root), *options, "--parent", str(os.getpid()))


def _environment(source: str) -> dict[str, str]:
    """All that the child is told: one thread, our modules, and how to get at its source. No other secret of ours."""
    return {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
        **environment_for(parse(source), os.environ),
    }


async def _hear(stdout: asyncio.StreamReader, on_progress: OnProgress) -> Answer:
    answer = Answer()
    async for line in stdout:
        message = json.loads(line)
        if "progress" in message:
            said = message["progress"]
            progress = ImportProgress(ImportPhase(said["phase"]), said["bytes_done"], said["bytes_total"])
            on_progress(progress)
        elif "digest" in message:
            answer = Answer(digest=message["digest"])
        else:
            answer = Answer(error=_error(message["error"]["type"], message["error"]["message"]))
    return answer


def _error(name: str, message: str) -> CheckpointError:
    kinds = {kind.__name__: kind for kind in IMPORT_ERRORS}
    return kinds.get(name, ImportFailed)(message)


async def _tail(stderr: asyncio.StreamReader) -> str:
    kept = b""
    while data := await stderr.read(KEPT_STDERR_BYTES):
        kept = (kept + data)[-KEPT_STDERR_BYTES:]
    return kept.decode(errors="replace").strip()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Sees a child off that is still running because its parent gave up on it."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(GRACE_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _death(process: asyncio.subprocess.Process) -> str:
    code = process.returncode or 0
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code} and no answer"
