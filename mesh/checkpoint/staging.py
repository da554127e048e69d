"""A directory of checkpoints: how one gets in whole or not at all; what killed imports leave, for how long."""

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blake3 import blake3

from mesh.checkpoint.errors import Damaged, ManifestError, OriginUnreachable, StorageFailed
from mesh.checkpoint.journal import is_begun
from mesh.checkpoint.validate import is_digest
from mesh.checkpoint.verify import verify_checkpoint

PREFIX = ".tmp-"
CONTENT = "checkpoint"  # in a temporary directory: what is to be published
JOURNAL = "journal"
RESUMABLE_S = 7 * 24 * 3600.0  # that an import which was broken off can be gone on with
SPARE_BYTES = 64 << 20  # of the file system: journals and manifests must be written even when all else is full
LOCK = ".lock"  # in the root: held while directories appear, vanish or are swept; in a temporary one: its writer lives


def digests_in(root: Path) -> tuple[str, ...]:
    """The digests of the checkpoints in `root`, sorted. Whether they are intact only load_manifest can say."""
    if not root.is_dir():
        return ()
    return tuple(sorted(path.name for path in root.iterdir() if is_digest(path.name) and path.is_dir()))


@contextmanager
def staged(root: Path, name: str | None = None) -> Iterator[Path]:
    """A new directory in `root` that never looks like a checkpoint and is gone at the end, unless it was published.

    With a name it may be what an earlier import of that name left; and it stays for a later one, if this one has
    finished units in its journal and is broken off from outside: by a signal, or by an origin that is out of reach.
    Waits for another that has the name now.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        stage = root / f"{PREFIX}{_spelled(name)}"
        alive = _claimed(stage)
    except OSError as error:
        raise StorageFailed(f"{root} cannot take a new checkpoint: {error}") from error
    stays = False
    try:
        yield stage / CONTENT
    except (KeyboardInterrupt, OriginUnreachable):
        stays = _is_resumable(stage)
        raise
    finally:
        if not stays:
            _discard(stage)
        os.close(alive)


def journal_of(content: Path) -> Path:
    """Where an import notes how far a staged directory has come. It is not published."""
    return content.parent / JOURNAL


def staged_bytes(root: Path, name: str) -> int:
    """Bytes on the disk that an earlier import of that name has left to go on with."""
    content = root / f"{PREFIX}{_spelled(name)}" / CONTENT
    return sum(path.stat().st_blocks * 512 for path in content.glob("*") if path.is_file())


def make_way(root: Path, name: str, total: int) -> int:
    """Bytes of the import of that name that lie here already, at most its `total`. Where the disk lacks room for the
    rest, what other imports have left goes, even if they could go on."""
    begun = min(staged_bytes(root, name), total)
    if free_bytes(root) < total - begun + SPARE_BYTES:
        sweep_for(root, name)
    return begun


def free_bytes(root: Path) -> int:
    """Of the file system that holds `root`, or will."""
    home = next(path for path in (root, *root.absolute().parents) if path.is_dir())
    return shutil.disk_usage(home).free


def publish(content: Path, digest: str) -> Path:
    """Renames what was staged to its digest and syncs. One that is there already stays, unless it is damaged."""
    root = content.parent.parent
    target = root / digest
    if target.exists() and not _is_intact(target):
        remove(target)
    with _locked(root):
        if not target.exists():
            sync_directory(content)
            content.rename(target)
            sync_directory(root)
    return target


def remove(checkpoint: Path) -> None:
    """Deletes a checkpoint: at once out of sight, then off the disk. Files that are open or mapped stay readable."""
    with _locked(checkpoint.parent):
        grave = _temporary(checkpoint.parent)
        checkpoint.rename(grave / checkpoint.name)
    shutil.rmtree(grave, ignore_errors=True)


def sweep(root: Path) -> tuple[str, ...]:
    """Removes temporary directories whose writer is dead; returns their names. Safe beside running imports.

    Those that a later import can go on with stay for RESUMABLE_S.
    """
    return _sweep(root, _is_resumable)


def sweep_for(root: Path, name: str) -> None:
    """Removes what other imports than that of `name` have left, even if they could go on: this one needs the room."""
    own = f"{PREFIX}{_spelled(name)}"
    _sweep(root, lambda stage: stage.name == own)


def _sweep(root: Path, stays: Callable[[Path], bool]) -> tuple[str, ...]:
    if not root.is_dir():
        return ()
    with _locked(root):
        dead = [path for path in sorted(root.glob(f"{PREFIX}*")) if not _has_writer(path) and not stays(path)]
        for path in dead:
            shutil.rmtree(path, ignore_errors=True)
    return tuple(path.name for path in dead)


def _temporary(root: Path) -> Path:
    path = root / f"{PREFIX}{_spelled(None)}"
    path.mkdir()
    return path


def _spelled(name: str | None) -> str:
    return secrets.token_hex(8) if name is None else blake3(name.encode(errors="surrogateescape")).hexdigest(length=16)


def _claimed(stage: Path) -> int:
    """Makes the directory and takes its lock, after whoever has it. Returns the descriptor that holds it."""
    while True:
        with _locked(stage.parent):
            (stage / CONTENT).mkdir(parents=True, exist_ok=True)
            alive = os.open(stage / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            with suppress(BlockingIOError):
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return alive
        try:
            fcntl.flock(alive, fcntl.LOCK_EX)  # the other one is done, and may have taken the directory along
        finally:
            os.close(alive)


def _discard(stage: Path) -> None:
    """Out of the way of who waits for the name, then off the disk. What fails is left to a sweep."""
    grave = stage.parent / f"{PREFIX}{_spelled(None)}"
    with suppress(OSError), _locked(stage.parent):
        stage.rename(grave)
    shutil.rmtree(grave, ignore_errors=True)


def _is_resumable(stage: Path) -> bool:
    journal = stage / JOURNAL
    if not (stage / CONTENT).is_dir() or not is_begun(journal):
        return False
    return time.time() - journal.stat().st_mtime < RESUMABLE_S


def _has_writer(stage: Path) -> bool:
    try:
        descriptor = os.open(stage / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_intact(checkpoint: Path) -> bool:
    try:
        verify_checkpoint(checkpoint)
    except (Damaged, ManifestError):
        return False
    return True


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    descriptor = _lock(root / LOCK)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    """A descriptor that holds the lock until it is closed, by hand or by death."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def sync_directory(path: Path) -> None:
    """Makes the names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
