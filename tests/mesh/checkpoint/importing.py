"""The import as a process of its own that a test can kill. A fork server that has torch loaded makes many cheap."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from mesh.checkpoint.convert import import_directory, import_origin
from mesh.checkpoint.layout import total_bytes
from mesh.checkpoint.origins.local import LocalOrigin
from mesh.checkpoint.pace import Pace
from mesh.checkpoint.progress import ImportPhase, ImportProgress
from mesh.checkpoint.verify import verify_checkpoint

PACE = Pace(ring_bytes=1 << 15, chunk_bytes=1 << 12, readers=2, sync_bytes=1)  # every unit gets its line at once
Die = Callable[[], None]


def run_import(source: Path, root: Path, progress: Connection, arm: Callable[[Die], None] | None) -> None:
    """What the process does. `arm` sees to it that it kills itself at some point."""
    if arm is not None:
        arm(lambda: os.kill(os.getpid(), signal.SIGKILL))
    import_directory(source, root, on_progress=progress.send, pace=PACE)


@contextmanager
def importing(
    source: Path, root: Path, arm: Callable[[Die], None] | None = None
) -> Iterator[tuple[BaseProcess, Connection]]:
    """A running import, and its progress; killed and reaped at the end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mesh.checkpoint.convert", "transformers.models.mixtral.modeling_mixtral"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=run_import, args=(source, root, theirs, arm))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()


class Counted(LocalOrigin):
    """Knows how many bytes of shards were asked of it."""

    shard_bytes = 0

    def read_into(self, name: str, offset: int, view: memoryview) -> None:
        """As ever."""
        self.shard_bytes += len(view) if name.endswith(".safetensors") else 0
        super().read_into(name, offset, view)


@dataclass(frozen=True, slots=True)
class Done:
    """An import that went through, and what it took."""

    digest: str
    first_written: int  # bytes, by the first report
    shard_bytes: int
    part_bytes: int


def import_here(source: Path, root: Path) -> Done:
    seen: list[ImportProgress] = []
    with closing(Counted(source)) as origin:
        manifest = import_origin(origin, root, on_progress=seen.append, pace=PACE)
        verify_checkpoint(root / manifest.digest)
        written = [progress.bytes_done for progress in seen if progress.phase is ImportPhase.WRITING]
        return Done(manifest.digest, written[0], origin.shard_bytes, total_bytes(manifest))


def hear_out(progress: Connection) -> None:
    """Returns when the process has ended."""
    with suppress(EOFError):
        while True:
            progress.recv()


def names(root: Path) -> set[str]:
    """What lies in it, its lock aside."""
    return {path.name for path in root.iterdir()} - {".lock"}


def end_server() -> None:
    """Other tests count this process's children."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
